// SPDX-FileCopyrightText: The sev-artifacts authors
// SPDX-License-Identifier: Apache-2.0
/* The disk: each sector says where it belongs, and how often it was written. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "load.h"

#define SECTOR 512

static void fill(uint64_t *sector, uint64_t where, uint32_t generation)
{
    uint64_t tag = (where << 24 ^ generation) * 0x9e3779b97f4a7c15u;

    for (unsigned i = 0; i < SECTOR / 8; i++)
        sector[i] = generation ? noise[i] ^ (tag + i) : 0;
}

static bool same(const uint64_t *sector, uint64_t where, uint32_t generation)
{
    uint64_t expected[SECTOR / 8];

    fill(expected, where, generation);
    return !memcmp(sector, expected, SECTOR);
}

/* One range after the other in a part of the disk that no other thread touches, written or read back. */
void *use_disk(void *argument)
{
    unsigned long index = (unsigned long)argument, limit = disk_limit / SECTOR;
    int disk = open("/dev/vda", O_RDWR | O_DIRECT);
    unsigned long sectors = number("/sys/block/vda/size") / DISKS, first = index * sectors;
    uint64_t state = index * 7919 + 1;
    uint32_t *generations = calloc(sectors, sizeof(*generations));
    char *buffer = mmap(NULL, disk_limit + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cpu_set_t cpus;

    demand(disk >= 0 && generations && buffer != MAP_FAILED, "/dev/vda");
    /* A queue belongs to a processor. */
    CPU_ZERO(&cpus);
    CPU_SET(index % sysconf(_SC_NPROCESSORS_ONLN), &cpus);
    sched_setaffinity(0, sizeof(cpus), &cpus);
    while (!over && disk_bytes < wishes[DISK] << 20) {
        /* Half of them of any size, half of them as large as the device takes. */
        unsigned long count = next(&state) % 2 ? limit : 1 + next(&state) % limit, done;
        unsigned long at = next(&state) % (sectors - count);
        char *data = buffer + next(&state) % 8 * SECTOR;
        bool writes = next(&state) % 2;
        ssize_t moved;

        if (writes && wishes[CHECK])
            for (done = 0; done < count; done++)
                fill((void *)(data + done * SECTOR), first + at + done, ++generations[at + done]);
        moved = writes ? pwrite(disk, data, count * SECTOR, (first + at) * SECTOR)
                       : pread(disk, data, count * SECTOR, (first + at) * SECTOR);
        if (moved != (ssize_t)(count * SECTOR)) {
            say("disk: %s of %lu sectors at %lu: %zd, %s", writes ? "write" : "read", count, first + at, moved,
                strerror(errno));
            failed++;
            break;
        }
        if (!writes && wishes[CHECK])
            for (done = 0; done < count; done++)
                wrong += !same((void *)(data + done * SECTOR), first + at + done, generations[at + done]);
        disk_bytes += moved;
    }
    close(disk);
    munmap(buffer, disk_limit + 4096);
    free(generations);
    return NULL;
}
