// SPDX-FileCopyrightText: The sev-artifacts authors
// SPDX-License-Identifier: Apache-2.0
/*
 * The network: eth0 here, eth1 in a namespace of its own, between them the host. TCP carries streams both ways, whose
 * words both ends know.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "load.h"

static void up(const char *name, const char *address)
{
    int door = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request = { 0 };
    struct sockaddr_in *where = (void *)&request.ifr_addr;

    strcpy(request.ifr_name, name);
    where->sin_family = AF_INET;
    inet_aton(address, &where->sin_addr);
    demand(!ioctl(door, SIOCSIFADDR, &request), "address");
    inet_aton("255.255.255.0", &where->sin_addr);
    demand(!ioctl(door, SIOCSIFNETMASK, &request), "netmask");
    request.ifr_mtu = wishes[MTU];
    demand(!ioctl(door, SIOCSIFMTU, &request), "mtu");
    request.ifr_flags = IFF_UP;
    demand(!ioctl(door, SIOCSIFFLAGS, &request), "up");
    close(door);
}

/* rtnetlink(7): the link goes to the namespace of process `pid`. */
static void move(const char *name, pid_t pid)
{
    struct {
        struct nlmsghdr head;
        struct ifinfomsg link;
        struct rtattr attribute;
        uint32_t pid;
    } message = {
        .head = { .nlmsg_len = sizeof(message), .nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
        .link = { .ifi_index = if_nametoindex(name) },
        .attribute = { .rta_len = RTA_LENGTH(sizeof(uint32_t)), .rta_type = IFLA_NET_NS_PID },
        .pid = pid,
    };
    struct { struct nlmsghdr head; struct nlmsgerr error; char rest[512]; } answer;
    int door = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

    demand(send(door, &message, sizeof(message), 0) == sizeof(message), "netlink");
    demand(recv(door, &answer, sizeof(answer), 0) > 0 && !answer.error.error, "moving eth1");
    close(door);
}

/* Both ends know the stream: message by message, of any size, each with a number that is in all its words. */
static void transfer(int door, bool sends, unsigned long seed)
{
    uint64_t *data = malloc(MESSAGE), state = seed;
    unsigned long left = (wishes[NET] << 20) / STREAMS;

    demand(data != NULL, "memory");
    for (uint64_t tag = seed << 32; left && !over; tag++) {
        size_t size = 8 * (1 + next(&state) % (MESSAGE / 8)), done = 0;

        if (size > left)
            size = left;
        if (sends && wishes[CHECK])
            for (size_t i = 0; i < (size + 7) / 8; i++)
                data[i] = noise[i] ^ (tag + i);
        while (done < size) {
            ssize_t moved = sends ? send(door, (char *)data + done, size - done, MSG_NOSIGNAL)
                                  : recv(door, (char *)data + done, size - done, 0);

            if (moved <= 0) {
                if (!over) {
                    say("network: %s: %zd, %s", sends ? "send" : "receive", moved, strerror(errno));
                    failed++;
                }
                goto out;
            }
            done += moved;
            if (!sends)
                net_bytes += moved;
        }
        if (!sends && wishes[CHECK])
            for (size_t i = 0; i < (size + 7) / 8; i++)
                wrong += data[i] != (noise[i] ^ (tag + i));
        left -= size;
    }
out:
    free(data);
}

static int connections[2][STREAMS];

void *use_network(void *argument)
{
    unsigned long index = (unsigned long)argument, stream = index % STREAMS, side = index / STREAMS;

    /* Every other stream goes the other way. */
    transfer(connections[side][stream], (stream + side) % 2 == 0, stream + 1);
    return NULL;
}

/*
 * What is sent waits for room at the other device, which needs slots of the same pool for it: with a peer in another
 * machine it would not. So all that is under way has an eighth of the pool.
 */
static int open_socket(void)
{
    int door = socket(AF_INET, SOCK_STREAM, 0), size = pool_bytes / 16 / STREAMS;

    demand(door >= 0 && !setsockopt(door, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), "socket");
    return door;
}

void connect_all(void)
{
    int ready[2], go[2], listener;
    char byte;
    pid_t holder;
    int own = open("/proc/self/ns/net", O_RDONLY), other;
    char path[64];
    struct sockaddr_in where = { .sin_family = AF_INET, .sin_port = htons(7000) };

    demand(!pipe(ready) && !pipe(go), "pipe");
    holder = fork();
    if (!holder) {
        demand(!unshare(CLONE_NEWNET), "namespace");
        demand(write(ready[1], "", 1) == 1, "pipe");
        close(go[1]);
        _exit(read(go[0], &byte, 1) < 0);
    }
    demand(read(ready[0], &byte, 1) == 1, "pipe");
    move("eth1", holder);
    up("eth0", "10.0.0.1");
    snprintf(path, sizeof(path), "/proc/%d/ns/net", holder);
    other = open(path, O_RDONLY);
    /* A socket stays in the namespace in which it was made. */
    demand(!setns(other, CLONE_NEWNET), "setns");
    up("eth1", "10.0.0.2");
    listener = open_socket();
    demand(!bind(listener, (void *)&where, sizeof(where)) && !listen(listener, STREAMS), "listen");
    demand(!setns(own, CLONE_NEWNET), "setns");
    inet_aton("10.0.0.2", &where.sin_addr);
    for (int i = 0; i < STREAMS; i++) {
        connections[0][i] = open_socket();
        demand(!connect(connections[0][i], (void *)&where, sizeof(where)), "connect");
        connections[1][i] = accept(listener, NULL, NULL);
        demand(connections[1][i] >= 0, "accept");
    }
    close(listener);
    close(own);
    close(other);
    close(go[1]);
    /* The open sockets keep the namespace. */
    waitpid(holder, NULL, 0);
}

void disconnect_all(void)
{
    for (int i = 0; i < STREAMS; i++)
        close(connections[0][i]), close(connections[1][i]);
}
