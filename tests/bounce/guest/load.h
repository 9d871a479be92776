// SPDX-FileCopyrightText: The sev-artifacts authors
// SPDX-License-Identifier: Apache-2.0
/* What the parts of the load share. */
#ifndef LOAD_H
#define LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define MESSAGE (256 << 10) /* bytes: the largest message, and the noise that all data is made of */
#define DISKS 16            /* threads that use the disk */
#define STREAMS 4           /* TCP connections, half of them each way */

/* Numbers of the kernel's command line, load.NAME=NUMBER. */
enum wish {
    DISK,     /* MiB through the disk */
    NET,      /* MiB through the network */
    PORT,     /* MiB through the port, there and back */
    CHECK,    /* 0: data is neither made nor compared */
    PRESSURE, /* MiB that the pressure leaves available; 0: none */
    MTU,      /* of the network, bytes */
    PATIENCE, /* seconds without a byte until disk or network count as stalled */
    HOLD,     /* 1: read from /dev/vdb in the end, and do not wait for it */
    WISHES
};

extern unsigned long wishes[WISHES];
extern atomic_ulong disk_bytes, net_bytes, port_bytes; /* that arrived */
extern atomic_ulong wrong;                 /* sectors and words that were not what they must be */
extern atomic_ulong failed;                /* system calls */
extern atomic_ulong full_writes;           /* of the port, that found no room */
extern atomic_bool over;
extern uint64_t noise[MESSAGE / 8];
extern unsigned long disk_limit; /* bytes: the largest request */
extern unsigned long pool_bytes; /* of the bounce buffers, or 64 MiB where there are none */

void say(const char *format, ...);
void demand(bool holds, const char *what); /* ends the guest otherwise, with errno's text */
unsigned long number(const char *path);    /* the number in a file, 0 for none */
bool put(const char *path, const char *text);
uint64_t next(uint64_t *state); /* xorshift64 */

void *use_disk(void *index);
void connect_all(void);
void *use_network(void *index);
void disconnect_all(void);

void open_port(void);
void *write_port(void *unused);
void *read_port(void *unused);
void close_port(void);

#endif
