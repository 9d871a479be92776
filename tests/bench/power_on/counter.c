// SPDX-FileCopyrightText: The sev-artifacts authors
// SPDX-License-Identifier: Apache-2.0
//
// A plugin of QEMU's emulator: how often each block of code ran, and each instruction that an encrypted guest's
// hardware intercepts. usage: -plugin FILE.so,out=PATH; written when QEMU quits, a line each:
//
//     KIND ADDRESS COUNT        KIND: block (COUNT is of instructions), wrmsr, rdmsr, cpuid, in, out, hlt, wbinvd
//
// Declared here is what is used of QEMU 10.0's include/qemu/qemu-plugin.h (interface version 4): one processor, and
// instructions as bytes. One counter for an address and kind: code that was translated twice is counted in one place.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
} qemu_plugin_u64;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;

struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element_size);
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *score, unsigned int vcpu_index);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *dest, size_t length);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*call)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *tb, enum qemu_plugin_op op,
                                                       qemu_plugin_u64 entry, uint64_t value);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *insn, enum qemu_plugin_op op,
                                                         qemu_plugin_u64 entry, uint64_t value);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*call)(qemu_plugin_id_t, void *), void *data);

__attribute__((visibility("default"))) int qemu_plugin_version = 4;

enum kind { NONE, BLOCK, WRMSR, RDMSR, CPUID, IN, OUT, HLT, WBINVD };
static const char *const names[] = {"", "block", "wrmsr", "rdmsr", "cpuid", "in", "out", "hlt", "wbinvd"};

enum { SLOTS = 1 << 20 }; // a start has some 100,000 blocks
static struct { uint64_t address; enum kind kind; } known[SLOTS];
static struct qemu_plugin_scoreboard *score;
static size_t used;
static char *path;

// The counter of an address and kind, in a table with open addressing.
static qemu_plugin_u64 counter(uint64_t address, enum kind kind)
{
    size_t at = (address * 0x9e3779b97f4a7c15u >> 40 ^ (size_t)kind * 40503) % SLOTS;
    while (known[at].kind != NONE && (known[at].address != address || known[at].kind != kind))
        at = (at + 1) % SLOTS;
    if (known[at].kind == NONE) {
        if (++used == SLOTS) {
            fprintf(stderr, "counter.c: more code than counters\n");
            exit(1);
        }
        known[at].address = address;
        known[at].kind = kind;
    }
    return (qemu_plugin_u64){score, at * sizeof(uint64_t)};
}

// By the opcode behind prefixes (AMD64 Architecture Programmer's Manual, volume 3).
static enum kind classify(const uint8_t *byte, size_t size)
{
    size_t i = 0;
    while (i + 1 < size && (byte[i] == 0x66 || byte[i] == 0x67 || byte[i] == 0xf2 || byte[i] == 0xf3 ||
                            byte[i] == 0x2e || (byte[i] & 0xf0) == 0x40))
        i++;
    switch (byte[i]) {
    case 0xe4: case 0xe5: case 0xec: case 0xed: case 0x6c: case 0x6d: return IN;
    case 0xe6: case 0xe7: case 0xee: case 0xef: case 0x6e: case 0x6f: return OUT;
    case 0xf4: return HLT;
    case 0x0f: break;
    default: return NONE;
    }
    switch (i + 1 < size ? byte[i + 1] : 0) {
    case 0x09: return WBINVD;
    case 0x30: return WRMSR;
    case 0x32: return RDMSR;
    case 0xa2: return CPUID;
    default: return NONE;
    }
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(tb);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64,
                                                      counter(qemu_plugin_tb_vaddr(tb), BLOCK), count);
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint8_t bytes[16] = {0};
        size_t size = qemu_plugin_insn_data(insn, bytes, sizeof bytes);
        enum kind kind = size ? classify(bytes, size) : NONE;
        if (kind != NONE)
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64,
                                                                counter(qemu_plugin_insn_vaddr(insn), kind), 1);
    }
}

static void quits(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    const uint64_t *counts = qemu_plugin_scoreboard_find(score, 0);
    FILE *file = fopen(path, "w");
    if (!file) {
        perror(path);
        return;
    }
    for (size_t at = 0; at < SLOTS; at++)
        if (known[at].kind != NONE && counts[at])
            fprintf(file, "%s %#llx %llu\n", names[known[at].kind], (unsigned long long)known[at].address,
                    (unsigned long long)counts[at]);
    fclose(file);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info,
                                                               int count, char **arguments)
{
    (void)info;
    if (count != 1 || strncmp(arguments[0], "out=", 4) != 0)
        return 1;
    path = strdup(arguments[0] + 4);
    score = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, quits, NULL);
    return 0;
}
