// SPDX-FileCopyrightText: The sev-artifacts authors
// SPDX-License-Identifier: Apache-2.0
/*
 * A port like the agent's: what is written there comes back from the host, word for word. Its buffers are mapped for
 * as long as they wait for the host, so a full pool can cost one of them each time that it is read.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

#define MOST (32 << 10) /* bytes that the driver takes at once */

static int door = -1;

void open_port(void)
{
    door = open("/dev/vport0p1", O_RDWR);
    if (door < 0)
        door = open("/dev/vport1p1", O_RDWR);
    demand(door >= 0, "the port");
}

void close_port(void)
{
    close(door);
}

void *write_port(void *unused)
{
    uint64_t data[MOST / 8], state = 4711;
    unsigned long left = wishes[PORT] << 20;

    (void)unused;
    for (uint64_t tag = 1; left && !over; tag++) {
        size_t size = 8 * (1 + next(&state) % (MOST / 8)), done = 0;

        if (size > left)
            size = left;
        for (size_t i = 0; i < size / 8; i++)
            data[i] = noise[i] ^ (tag + i);
        while (done < size && !over) {
            ssize_t moved = write(door, (char *)data + done, size - done);

            if (moved < 0) {
                say("port: write: %s", strerror(errno));
                failed++;
                return NULL;
            }
            /* The driver says so when it has found no room; poll(2) does not know of it. */
            if (!moved) {
                full_writes++;
                usleep(1000);
            }
            done += moved;
        }
        left -= size;
    }
    return NULL;
}

void *read_port(void *unused)
{
    uint64_t data[MOST / 8], state = 4711;
    unsigned long left = wishes[PORT] << 20;

    (void)unused;
    for (uint64_t tag = 1; left && !over; tag++) {
        size_t size = 8 * (1 + next(&state) % (MOST / 8)), done = 0;

        if (size > left)
            size = left;
        while (done < size && !over) {
            ssize_t moved = read(door, (char *)data + done, size - done);

            if (moved <= 0) {
                say("port: read: %zd, %s", moved, strerror(errno));
                failed++;
                return NULL;
            }
            done += moved;
            port_bytes += moved;
        }
        for (size_t i = 0; i < size / 8; i++)
            wrong += data[i] != (noise[i] ^ (tag + i));
        left -= size;
    }
    return NULL;
}
