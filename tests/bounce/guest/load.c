// SPDX-FileCopyrightText: The sev-artifacts authors
// SPDX-License-Identifier: Apache-2.0
/*
 * Process 1 of a guest that has nothing else to do: load on a disk and on two network devices at once, all of it
 * checked, and what the kernel says of its bounce buffers before, during and after.
 *
 *   writers and readers ── /dev/vda, O_DIRECT, random ranges ── each sector knows its number and its generation
 *   senders ── eth0 ══ the host's hub ══ eth1, in a network namespace of its own ── receivers, both ways, TCP
 *   pressure ── takes memory until little is available, gives it back, again
 *
 * The kernel's command line says how much (load.NAME=NUMBER, see load.h); the last line on the console is the result.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define SLOT 2048 /* bytes */
#define DEBUG "/sys/kernel/debug/swiotlb/"
#define DRIVER "/sys/bus/virtio/drivers/virtio_net/"

static const char *const names[WISHES] = { "disk", "net", "port", "check", "pressure", "mtu", "patience", "hold" };
unsigned long wishes[WISHES] = { [DISK] = 64, [CHECK] = 1, [MTU] = 1500, [PATIENCE] = 300 };
atomic_ulong disk_bytes, net_bytes, port_bytes, wrong, failed, full_writes;
atomic_bool over;
uint64_t noise[MESSAGE / 8];
unsigned long disk_limit, pool_bytes;
static char links[2][256]; /* the network devices, as their driver calls them */

void say(const char *format, ...)
{
    va_list words;

    va_start(words, format);
    printf("load: ");
    vprintf(format, words);
    printf("\n");
    fflush(stdout);
    va_end(words);
}

static void end(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

void demand(bool holds, const char *what)
{
    if (holds)
        return;
    say("cannot: %s: %s", what, strerror(errno));
    end();
}

unsigned long number(const char *path)
{
    char text[64] = "";
    int file = open(path, O_RDONLY);

    if (file < 0)
        return 0;
    if (read(file, text, sizeof(text) - 1) < 0)
        text[0] = 0;
    close(file);
    return strtoul(text, NULL, 10);
}

bool put(const char *path, const char *text)
{
    int file = open(path, O_WRONLY);
    bool done = file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text);

    if (file >= 0)
        close(file);
    return done;
}

uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

/* What the processors have done for the kernel and in all, in seconds (proc_stat(5)). */
static void busy(double *kernel, double *all)
{
    unsigned long user = 0, nice = 0, system = 0, idle, wait, irq = 0, softirq = 0;
    FILE *file = fopen("/proc/stat", "r");

    demand(file && fscanf(file, "cpu %lu %lu %lu %lu %lu %lu %lu", &user, &nice, &system, &idle, &wait, &irq,
                          &softirq) == 7, "/proc/stat");
    fclose(file);
    *kernel = (double)(system + irq + softirq) / sysconf(_SC_CLK_TCK);
    *all = *kernel + (double)(user + nice) / sysconf(_SC_CLK_TCK);
}

static unsigned long available(void)
{
    char line[128];
    unsigned long kib = 0;
    FILE *file = fopen("/proc/meminfo", "r");

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %lu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib / 1024;
}

/* Takes memory until only so many MiB are available, and gives it back, so that allocations have to reclaim. */
static void *press(void *argument)
{
    enum { CHUNK = 1 << 20, CHUNKS = 4096 };
    char **held = calloc(CHUNKS, sizeof(*held));

    (void)argument;
    demand(held != NULL, "memory");
    while (!over) {
        unsigned count = 0;

        while (!over && count < CHUNKS && available() > wishes[PRESSURE]) {
            held[count] = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (held[count] == MAP_FAILED)
                break;
            memset(held[count++], 1, CHUNK);
        }
        usleep(100000);
        while (count)
            munmap(held[--count], CHUNK);
    }
    return NULL;
}

/* The kernel's log says what went wrong where nobody else hears of it; the console may be quiet. */
static void count_log(unsigned long *full, unsigned long *bad)
{
    static const char *const words[] = { "I/O error", "WARNING: CPU", "BUG:", "failed add_buf", "Errors adding",
                                         "page allocation failure", "Out of memory", "Oops" };
    char record[8192];
    int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
    ssize_t length;

    *full = *bad = 0;
    while (log >= 0 && ((length = read(log, record, sizeof(record) - 1)) > 0 || errno == EPIPE)) {
        if (length <= 0)
            continue;
        record[length] = 0;
        *full += strstr(record, "swiotlb buffer is full") != NULL;
        for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
            if (strstr(record, words[i])) {
                ++*bad;
                say("log: %s", strchr(record, ';') + 1);
            }
    }
    if (log >= 0)
        close(log);
}

static void bind_links(bool bound)
{
    for (int i = 0; i < 2; i++)
        if (links[i][0])
            demand(put(bound ? DRIVER "bind" : DRIVER "unbind", links[i]), bound ? "bind" : "unbind");
}

static unsigned long slots(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), DEBUG "%s", name);
    return number(path);
}

static void prepare(void)
{
    char text[4096] = "", *word;
    int file, found = 0;
    DIR *folder;
    struct dirent *entry;
    uint64_t state = 42;

    mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
    file = open("/proc/cmdline", O_RDONLY);
    demand(file >= 0 && read(file, text, sizeof(text) - 1) > 0, "/proc/cmdline");
    close(file);
    for (word = strtok(text, " \n"); word; word = strtok(NULL, " \n"))
        for (int i = 0; i < WISHES; i++) {
            size_t length = strlen(names[i]);

            if (!strncmp(word, "load.", 5) && !strncmp(word + 5, names[i], length) && word[5 + length] == '=')
                wishes[i] = strtoul(word + 6 + length, NULL, 0);
        }
    for (size_t i = 0; i < MESSAGE / 8; i++)
        noise[i] = next(&state);
    if ((folder = opendir(DRIVER)) != NULL) {
        while ((entry = readdir(folder)) != NULL)
            if (!strncmp(entry->d_name, "virtio", 6) && found < 2)
                snprintf(links[found++], sizeof(*links), "%s", entry->d_name);
        closedir(folder);
    }
    pool_bytes = slots("io_tlb_nslabs") ? slots("io_tlb_nslabs") * SLOT : 64 << 20;
    disk_limit = number("/sys/block/vda/queue/max_sectors_kb") << 10;
}

/* Threads that end by themselves once there has been enough; false when one of the ways does not move for long. */
static bool watch(pthread_t *threads, unsigned count)
{
    static const enum wish kinds[] = { DISK, NET, PORT };
    atomic_ulong *const bytes[] = { &disk_bytes, &net_bytes, &port_bytes };
    unsigned long last[3] = { 0 }, still[3] = { 0 }, waited = 0;

    for (unsigned done = 0; done < count;) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        if (!pthread_timedjoin_np(threads[done], NULL, &until)) {
            done++;
            continue;
        }
        if (++waited % 10 == 0)
            say("%lu s: MiB disk %lu, network %lu, port %lu; used %lu of %lu; %lu MiB available", waited,
                disk_bytes >> 20, net_bytes >> 20, port_bytes >> 20, slots("io_tlb_used"), slots("io_tlb_nslabs"),
                available());
        for (int i = 0; i < 3; i++) {
            unsigned long moved = *bytes[i];

            still[i] = moved != last[i] || moved >= wishes[kinds[i]] << 20 ? 0 : still[i] + 1;
            last[i] = moved;
            if (still[i] > wishes[PATIENCE]) {
                say("stalled: %s", names[kinds[i]]);
                return false;
            }
        }
    }
    return true;
}

int main(void)
{
    pthread_t threads[DISKS + 2 * STREAMS + 2], pressing;
    unsigned count = 0;
    unsigned long before, rest, after, full, bad;
    double began, kernel[2], all[2];
    bool moved;

    prepare();
    /* Without them no buffer waits for a packet: what is in use now must be in use in the end, to the slot. */
    bind_links(false);
    before = slots("io_tlb_used");
    put(DEBUG "io_tlb_used_hiwater", "0");
    bind_links(true);
    if (wishes[NET])
        connect_all();
    if (wishes[PORT])
        open_port();
    rest = slots("io_tlb_used");
    say("pool %lu slots, used %lu, requests of up to %lu KiB, %lu MiB available", slots("io_tlb_nslabs"), rest,
        disk_limit >> 10, available());
    began = now();
    busy(&kernel[0], &all[0]);
    for (unsigned long i = 0; i < DISKS && wishes[DISK]; i++)
        pthread_create(&threads[count++], NULL, use_disk, (void *)i);
    for (unsigned long i = 0; i < 2 * STREAMS && wishes[NET]; i++)
        pthread_create(&threads[count++], NULL, use_network, (void *)i);
    if (wishes[PORT]) {
        pthread_create(&threads[count++], NULL, write_port, NULL);
        pthread_create(&threads[count++], NULL, read_port, NULL);
    }
    if (wishes[PRESSURE])
        pthread_create(&pressing, NULL, press, NULL);
    moved = watch(threads, count);
    began = now() - began;
    busy(&kernel[1], &all[1]);
    over = true;
    /* What is stuck would hold this up, too. */
    if (moved) {
        if (wishes[PRESSURE])
            pthread_join(pressing, NULL);
        if (wishes[NET])
            disconnect_all();
        if (wishes[PORT])
            close_port();
        bind_links(false);
    }
    /* A request that is never answered: its buffers are the ones that are not given back. */
    if (wishes[HOLD] && !fork()) {
        static char page[4096] __attribute__((aligned(4096)));

        _exit(pread(open("/dev/vdb", O_RDONLY | O_DIRECT), page, sizeof(page), 0) < 0);
    }
    for (int i = 0; i < 50 && (slots("io_tlb_used") != before || (wishes[HOLD] && i < 20)); i++)
        usleep(100000);
    after = slots("io_tlb_used");
    count_log(&full, &bad);
    say("{\"slots\": %lu, \"before\": %lu, \"rest\": %lu, \"most\": %lu, \"after\": %lu, \"grown\": %lu, \"full\": %lu, \"bad\": %lu, "
        "\"disk\": %lu, \"network\": %lu, \"port\": %lu, \"full_writes\": %lu, \"wrong\": %lu, \"failed\": %lu, "
        "\"limit\": %lu, \"stalled\": %s, \"seconds\": %.3f, \"kernel\": %.2f, \"processor\": %.2f}",
        slots("io_tlb_nslabs"), before, rest, slots("io_tlb_used_hiwater"), after, slots("io_tlb_transient_nslabs"), full, bad,
        disk_bytes, net_bytes, port_bytes, full_writes, wrong, failed, disk_limit, moved ? "false" : "true", began,
        kernel[1] - kernel[0], all[1] - all[0]);
    end();
}
