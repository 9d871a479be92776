// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors
//
// The workload's side of the socket for reports, for a root that has nothing but busybox.
// ask QUESTION: sends it and its line's end, prints the answer. Status 2: there is no such socket.
// ask: connects, sends nothing, prints "connected" and stays.
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/sev-reports"};
    char buffer[4096];
    ssize_t count;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        perror(address.sun_path);
        return 2;
    }
    if (argc < 2) {
        puts("connected");
        fflush(stdout);
        pause();
    }
    if (send(fd, argv[1], strlen(argv[1]), MSG_NOSIGNAL) < 0 || send(fd, "\n", 1, MSG_NOSIGNAL) < 0)
        perror("send");
    while ((count = read(fd, buffer, sizeof buffer)) > 0)
        fwrite(buffer, 1, (size_t)count, stdout);
    return 0;
}
