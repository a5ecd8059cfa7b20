/* Counting in translated code (the law: _core.c).
 *
 * Where libunicorn would generate the call of the block hook, a few of its own intermediate operations are generated
 * instead: subtract the block's count from what is left to the deadline, call only when less than nothing is left. The
 * call costs a quarter of a boot. How many instructions the block has is known when all of it was translated; then, before host
 * code is made of it, the number is put into the subtraction.
 *
 * It rests on more of libunicorn's inside than the rest of this engine: the numbers of a few operations are learnt by
 * having libunicorn generate an addition and looking on, and the place of a block's size and count in its descriptor is
 * compared with what the edge hook tells; but some are those of one version. So it is done with that version only, and
 * only if what was learnt makes sense; else the call stays, and the counts are the same. */
#include "core.h"
#include <stddef.h>

/* Of libunicorn 2.1.4 (tcg.h, tcg-cond.h, tcg-opc.h). */
enum { I64 = 1, GE = 3, SET_LABEL = 1, LABEL_PRESENT = 1, MO_64 = 3 };
#define VERSION 0x02010400 /* major, minor, patch, extra: 255 is a release */
#define PLACEHOLDER 0x00c0ffee5107ULL /* stands for the count until that is known */

/* The beginning of a translated block's descriptor (exec-all.h, struct TranslationBlock). */
typedef struct {
    uint64_t pc, cs_base;
    uint32_t flags;
    uint16_t size, icount;
} Descriptor;

int inline_allowed = 1;
static enum { UNTRIED, USABLE, UNUSABLE } state;
static int layout_known;
static const Descriptor *descriptor; /* of the block that was generated last */
static uint64_t *placeholder;        /* in the operation that sets the count of the block being translated */
static void *last_operation;
static int learning, learnt[8], n_learnt;

/* Values lately given to temporaries: the arguments of the block hook's call are among them. */
static struct {
    uintptr_t temporary, value;
} given[16];
static unsigned n_given;

EXPORT void tcg_gen_op2_x86_64(void *context, int operation, uintptr_t a, uintptr_t b)
{
    given[n_given % 16].temporary = a;
    given[n_given++ % 16].value = b;
    own.op2(context, operation, a, b);
}

EXPORT void tcg_gen_op3_x86_64(void *context, int operation, uintptr_t a, uintptr_t b,
                                uintptr_t c)
{
    if (!learning) {
        own.op3(context, operation, a, b, c);
        return;
    }
    if (n_learnt < 8)
        learnt[n_learnt] = operation;
    n_learnt++;
}

EXPORT void *tcg_emit_op_x86_64(void *context, int operation)
{
    return last_operation = own.emit(context, operation);
}

/* Makes host code of a block that was translated whole. */
EXPORT int tcg_gen_code_x86_64(void *context, void *block)
{
    if (inside) {
        descriptor = block;
        if (placeholder) {
            Slot *slot = running->generated;
            slot->size = descriptor->size;
            slot->icount = descriptor->icount;
            *placeholder = (uint64_t)-(int64_t)slot->icount;
            placeholder = NULL;
        }
    }
    return own.generate(context, block);
}

/* Whether a descriptor lies as is assumed here, by what the edge hook says of the block just generated. */
void check_layout(const uc_tb *block)
{
    if (layout_known || !descriptor)
        return;
    const Descriptor *d = descriptor;
    layout_known = d->pc == block->pc && d->size == block->size && d->icount == block->icount;
    if (!layout_known)
        state = UNUSABLE;
}

static int value_of(void *temporary, uint64_t *value)
{
    for (unsigned i = 1; i <= 16; i++)
        if (given[(n_given - i) % 16].temporary == (uintptr_t)temporary) {
            *value = given[(n_given - i) % 16].value;
            return 1;
        }
    return 0;
}

void find_translator(void *handle)
{
    int found = 1;
#define FIND(field, name) found &= (own.field = (__typeof__(own.field))dlsym(handle, name "_x86_64")) != NULL;
    FIND(op1, "tcg_gen_op1")
    FIND(op2, "tcg_gen_op2")
    FIND(op3, "tcg_gen_op3")
    FIND(temporary, "tcg_temp_new_internal")
    FIND(free_temporary, "tcg_temp_free_internal")
    FIND(constant64, "tcg_const_i64")
    FIND(constant32, "tcg_const_i32")
    FIND(branch, "tcg_gen_brcond_i64")
    FIND(label, "gen_new_label")
    FIND(emit, "tcg_emit_op")
    FIND(generate, "tcg_gen_code")
    FIND(vector_add, "tcg_gen_gvec_add")
#undef FIND
    if (!found || (lib.uc_version(NULL, NULL) & 0xffffff00) != VERSION)
        state = UNUSABLE;
}

/* An addition of 8 bytes is generated as load, load, add, store; here only their numbers are taken. */
static int learn(void *context)
{
    learning = 1;
    own.vector_add(context, MO_64, 0, 8, 16, 8, 8);
    learning = 0;
    return n_learnt == 4 && learnt[0] == learnt[1] && learnt[2] != learnt[0] && learnt[3] != learnt[0] &&
           learnt[3] != learnt[2];
}

/* Generates: left -= icount; if (left < 0) on_block(size 0); current = slot. Whether it did. */
int count_inline(void *s, void **arguments)
{
    uint64_t pc;
    running->generated = NULL;
    placeholder = NULL;
    if (state == UNTRIED)
        state = learn(s) ? USABLE : UNUSABLE;
    if (state == UNUSABLE || !layout_known || !inline_allowed || !value_of(arguments[1], &pc))
        return 0;
    Core *c = running;
    const int load = learnt[0], add = learnt[2], store = learnt[3];

#define TEMPORARY(handle) ((uintptr_t)s + (handle))
#define HANDLE(temporary) ((uintptr_t)(temporary) - (uintptr_t)s)
    uintptr_t less = TEMPORARY(own.constant64(s, (int64_t)PLACEHOLDER));
    uint64_t *words = last_operation;
    for (int i = 2; i < 8 && !placeholder; i++)
        if (words[i] == PLACEHOLDER)
            placeholder = &words[i];
    if (!placeholder) {
        own.free_temporary(s, (void *)less);
        return state = UNUSABLE, 0;
    }
    Slot *slot = c->generated = c->next_slot;
    fresh_slot(c);
    slot->pc = pc;

    uintptr_t base = TEMPORARY(own.constant64(s, (int64_t)(uintptr_t)&hot));
    uintptr_t zero = TEMPORARY(own.constant64(s, 0));
    void *left = own.temporary(s, I64, false);
    own.op3(s, load, (uintptr_t)left, base, offsetof(Hot, left));
    own.op3(s, add, (uintptr_t)left, (uintptr_t)left, less);
    own.op3(s, store, (uintptr_t)left, base, offsetof(Hot, left));
    void *common = own.label(s);
    own.branch(s, GE, HANDLE(left), HANDLE(zero), common);
    void *call[4] = {
        (void *)TEMPORARY(own.constant64(s, (int64_t)(uintptr_t)c->uc)),
        (void *)TEMPORARY(own.constant64(s, (int64_t)pc)),
        (void *)TEMPORARY(own.constant32(s, 0)),
        (void *)TEMPORARY(own.constant64(s, (int64_t)(uintptr_t)slot)),
    };
    own.call(s, (void *)on_block, NULL, 4, call);
    *(unsigned char *)common |= LABEL_PRESENT;
    own.op1(s, SET_LABEL, (uintptr_t)common);
    uintptr_t base_again = TEMPORARY(own.constant64(s, (int64_t)(uintptr_t)&hot));
    uintptr_t current = TEMPORARY(own.constant64(s, (int64_t)(uintptr_t)slot));
    own.op3(s, store, current, base_again, offsetof(Hot, current));
    void *used[] = {(void *)less, left, (void *)base, (void *)zero, call[0], call[1], call[2], call[3],
                    (void *)base_again, (void *)current};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        own.free_temporary(s, used[i]);
    return 1;
}
