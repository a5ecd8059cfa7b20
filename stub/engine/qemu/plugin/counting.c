/*
 * A TCG plugin that has translated code count its instructions at less cost.
 *
 * With -icount each translated block begins by taking its instructions from a count of 16 bits (gen_tb_start in QEMU's
 * include/exec/gen-icount.h):
 *
 *     8b 5d f0              mov  -0x10(%rbp),%ebx    the count, and in the upper half -1 where somebody asks the CPU to stop
 *     83 eb n               sub  $n,%ebx
 *     ...
 *     0f 8c ...             jl   leave
 *     66 89 5d f0           mov  %bx,-0x10(%rbp)
 *
 * The next block loads 32 bits of which 16 were just stored, so that the processor cannot forward the store but waits for
 * it, at each block. Here the store becomes one of 32 bits: its prefix 66 becomes 3e, which means nothing here. What was
 * in the upper half was 0, or the block would have been left. Where another thread asks the CPU to stop between the load
 * and the store it is heard when the 16 bits run out instead of at once; nothing of ours asks from another thread.
 *
 * Nothing is counted otherwise. Code of another form is left as it is, and only slower. The functions of the plugin
 * interface are those of its version 1 (QEMU 4.2 to 8.2, docs/devel/tcg-plugins.rst).
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { LINE = 64 };            /* blocks begin at multiples of it (tcg_tb_alloc) */
enum { AHEAD = 64 << 10 };     /* more than a block takes */
enum { STORE_WITHIN = 32 };    /* bytes of a block's beginning */
enum { OPERAND_SIZE = 0x66, SEGMENT_DS = 0x3e };

typedef uint64_t Plugin;
struct qemu_plugin_tb;
extern void qemu_plugin_register_vcpu_tb_trans_cb(Plugin id, void (*act)(Plugin, struct qemu_plugin_tb *));
extern void qemu_plugin_register_flush_cb(Plugin id, void (*act)(Plugin));

static uint8_t *code, *end, *next; /* the translated code; whatever comes from `next` on has not been seen */

/* QEMU's translated code is the largest piece of memory that can be written and run. */
static int find_code(void)
{
    char line[512], rights[8];
    unsigned long from, to;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s", &from, &to, rights) == 3 && strncmp(rights, "rwx", 3) == 0 &&
            to - from > (unsigned long)(end - code)) {
            code = (uint8_t *)from;
            end = (uint8_t *)to;
        }
    if (maps)
        fclose(maps);
    next = code;
    return code != NULL;
}

/* Whether a block begins there. */
static int change(uint8_t *block)
{
    static const uint8_t load[] = {0x8b, 0x5d, 0xf0, 0x83, 0xeb}, store[] = {0x89, 0x5d, 0xf0};
    if (memcmp(block, load, sizeof load) != 0)
        return 0;
    for (uint8_t *at = block + sizeof load; at < block + STORE_WITHIN; at++)
        if (at[0] == 0x0f && at[1] == 0x8c && at[6] == OPERAND_SIZE && memcmp(at + 7, store, sizeof store) == 0) {
            at[6] = SEGMENT_DS;
            break;
        }
    return 1;
}

/* A block is about to be translated: those before it are there. */
static void on_translation(Plugin id, struct qemu_plugin_tb *block)
{
    (void)id, (void)block;
    if (!code && !find_code())
        return;
    const uint8_t *last = end - next > AHEAD ? next + AHEAD : end - LINE;
    for (uint8_t *at = next; at < last; at += LINE)
        if (change(at))
            next = at + LINE;
}

static void on_flush(Plugin id)
{
    (void)id;
    next = code;
}

EXPORT int qemu_plugin_version = 1;

EXPORT int qemu_plugin_install(Plugin id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_flush_cb(id, on_flush);
    return 0;
}
