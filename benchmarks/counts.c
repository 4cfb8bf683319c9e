/* A plugin of QEMU's user mode emulators: how often each instruction was executed.

   qemu-aarch64 -plugin ./counts.so,out=FILE PROGRAM      FILE: lines "address count"

   Needs no header of QEMU: what it uses of version 1 of the plugin interface is declared here. A
   block of instructions is counted as one, so counts are exact unless a signal leaves it early. */

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t Id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_tb_trans_cb(Id, void (*)(Id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_atexit_cb(Id, void (*)(Id, void *), void *);

enum { ADD_U64 };

struct Block {
    struct Block *next;
    uint64_t count;
    size_t size;
    uint64_t places[];
};

EXPORT int qemu_plugin_version = 1;
static struct Block *blocks;
static const char *out;

static void translated(Id id, struct qemu_plugin_tb *tb) {
    size_t n = qemu_plugin_tb_n_insns(tb);
    struct Block *b = calloc(1, sizeof *b + n * sizeof(uint64_t));
    b->next = blocks;
    b->size = n;
    for (size_t k = 0; k < n; k++)
        b->places[k] = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, k));
    blocks = b;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &b->count, 1);
}

static void finished(Id id, void *data) {
    FILE *f = fopen(out, "w");
    if (f == NULL) return;
    for (struct Block *b = blocks; b != NULL; b = b->next)
        for (size_t k = 0; k < b->size && b->count; k++)
            fprintf(f, "%" PRIx64 " %" PRIu64 "\n", b->places[k], b->count);
    fclose(f);
}

EXPORT int qemu_plugin_install(Id id, const void *info, int argc, char **argv) {
    for (int k = 0; k < argc; k++)
        if (strncmp(argv[k], "out=", 4) == 0) out = strdup(argv[k] + 4);
    if (out == NULL) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
