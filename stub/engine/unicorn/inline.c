/* Counting in translated code (the law: _core.c).
 *
 * Where libunicorn would generate the call of the block hook, four of its own intermediate operations are generated
 * instead: add the block's count, compare with the deadline, call only past it. The call costs a quarter of a boot.
 *
 * It rests on more of libunicorn's inside than the rest of this engine: the numbers of a few operations are learnt by
 * having libunicorn generate an addition and looking on, but some are those of one version. So it is done with that
 * version only, and only if what was learnt makes sense; else the call stays, and the counts are the same. */
#include "core.h"
#include <stddef.h>

enum { I64 = 1, LTU = 4, SET_LABEL = 1, LABEL_PRESENT = 1, MO_64 = 3 }; /* of libunicorn 2.1.4 (tcg.h, tcg-cond.h, tcg-opc.h) */
#define VERSION 0x02010400 /* major, minor, patch, extra: 255 is a release */

int inline_allowed = 1;
static enum { UNTRIED, USABLE, UNUSABLE } state;
static int learning, learnt[8], n_learnt;

/* Values lately given to temporaries: the arguments of the block hook's call are among them. */
static struct {
    uintptr_t temporary, value;
} given[16];
static unsigned n_given;

__attribute__((visibility("default"))) void tcg_gen_op2_x86_64(void *context, int operation, uintptr_t a, uintptr_t b)
{
    given[n_given % 16].temporary = a;
    given[n_given++ % 16].value = b;
    own.op2(context, operation, a, b);
}

__attribute__((visibility("default"))) void tcg_gen_op3_x86_64(void *context, int operation, uintptr_t a, uintptr_t b,
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
    FIND(extend, "tcg_gen_extu_i32_i64")
    FIND(branch, "tcg_gen_brcond_i64")
    FIND(label, "gen_new_label")
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
    return n_learnt == 4 && learnt[0] == learnt[1] && learnt[2] != learnt[0] && learnt[3] != learnt[0] && learnt[3] != learnt[2];
}

/* Generates: count += slot->add; if (count >= deadline) on_block(size 0); current = slot. Whether it did. */
int count_inline(void *s, void **arguments)
{
    uint64_t pc;
    running->generated = NULL;
    if (state == UNTRIED)
        state = learn(s) ? USABLE : UNUSABLE;
    if (state == UNUSABLE || !inline_allowed || !value_of(arguments[1], &pc))
        return 0;
    Core *c = running;
    const int load = learnt[0], add = learnt[2], store = learnt[3];
    Slot *slot = c->generated = c->next_slot;
    fresh_slot(c);
    slot->pc = pc;

#define TEMPORARY(handle) ((uintptr_t)s + (handle))
#define HANDLE(temporary) ((uintptr_t)(temporary) - (uintptr_t)s)
    uintptr_t base = TEMPORARY(own.constant64(s, (int64_t)(uintptr_t)&hot));
    uintptr_t at = TEMPORARY(own.constant64(s, (int64_t)(uintptr_t)slot));
    void *count = own.temporary(s, I64, false), *more = own.temporary(s, I64, false);
    void *deadline = own.temporary(s, I64, false), *size = own.temporary(s, I64, false);
    own.extend(s, HANDLE(size), HANDLE(arguments[2]));
    own.op3(s, store, (uintptr_t)size, base, offsetof(Hot, size));
    own.op3(s, load, (uintptr_t)count, base, offsetof(Hot, count));
    own.op3(s, load, (uintptr_t)more, at, offsetof(Slot, add));
    own.op3(s, add, (uintptr_t)count, (uintptr_t)count, (uintptr_t)more);
    own.op3(s, store, (uintptr_t)count, base, offsetof(Hot, count));
    own.op3(s, load, (uintptr_t)deadline, base, offsetof(Hot, deadline));
    void *common = own.label(s);
    own.branch(s, LTU, HANDLE(count), HANDLE(deadline), common);
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
    void *used[] = {count, more, deadline, size, call[0], call[1], call[2], call[3],
                    (void *)base, (void *)at, (void *)base_again, (void *)current};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        own.free_temporary(s, used[i]);
    return 1;
}
