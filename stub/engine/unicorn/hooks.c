/* libunicorn's hooks: each says what left the guest. */
#include "core.h"
#include "stub/engine/prefixes.h"

enum { LONGEST_BLOCK = 0x1000 }; /* bytes */
enum { FETCH = 0x10 };           /* of #PF's error code */

/* A syscall ends its block, and may have prefixes. (A block's addresses are not those of RIP where the code segment has
 * a base.) */
static void note_syscall_length(Core *c, uint64_t rip, uint64_t end)
{
    enum { SHORTEST = 2, LONGEST = 15 };
    c->syscall_length = end - rip - SHORTEST <= LONGEST - SHORTEST ? end - rip : SHORTEST;
}

void on_syscall(uc_engine *uc, void *data)
{
    Core *c = data;
    if (c->draining) {
        uint64_t rip;
        lib.uc_reg_read(uc, UC_X86_REG_RIP, &rip);
        note_syscall_length(c, rip, c->drain_end);
    }
    if (drained(c, AT_SYSCALL))
        return;
    load_registers(c);
    c->word[RETIRED] = counted();
    note_syscall_length(c, c->seen[RIP], end_of_block());
    hot.current = NULL;
    c->seen[RIP] += c->syscall_length;
    c->word[EXIT_SOFTWARE] = 0;
    c->word[RIP] = c->seen[RIP];
    c->word[RCX] = c->seen[RIP];
    c->word[R11] = c->seen[RFLAGS];
    leave(c, EXIT_SYSCALL, AT_SYSCALL);
}

void on_sysenter(uc_engine *uc, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_MIDDLE))
        return;
    load_registers(c);
    settle(c, c->word[RIP], 0, 0);
    leave(c, EXIT_SYSENTER, AT_MIDDLE);
}

int32_t context_word(Core *c, size_t offset)
{
    int32_t value;
    memcpy(&value, (const char *)c->context + offset, sizeof value);
    return value;
}

/* libunicorn fetches ahead: where a block runs into the next page and that is not there, the fault comes at the block's
 * first instruction. Then the block is stepped, so that it comes at the instruction that does run into it. */
static int fetched_ahead(Core *c)
{
    enum { PAGE = 0x1000 };
    uint64_t fault, rip;
    lib.uc_reg_read(c->uc, UC_X86_REG_CR2, &fault);
    lib.uc_reg_read(c->uc, UC_X86_REG_RIP, &rip);
    if (c->traps || !(context_word(c, c->at_error_code) & FETCH) || (fault ^ (rip + PAGE)) & ~(uint64_t)(PAGE - 1))
        return 0;
    step_hidden(c);
    c->steps_to = fault & ~(uint64_t)(PAGE - 1);
    pause_blocks(counted(), end_of_block());
    return 1;
}

/* A deadline lies between a jump and what it jumps to, and so before the fault of fetching that. Told once; then the
 * fault comes again. */
static int deadline_before_fetch(Core *c, uint64_t sequel)
{
    const uint64_t rip = c->word[RIP];
    if (c->word[EXIT_VECTOR] != 14 || !(c->word[EXIT_ERROR_CODE] & FETCH) || c->word[RETIRED] < c->word[DEADLINE] ||
        rip == sequel || c->seen[CR2] == sequel)
        return 0;
    pause_blocks(c->word[RETIRED], rip);
    leave(c, EXIT_DEADLINE, AT_LOOP);
    return 1;
}

void on_interrupt(uc_engine *uc, uint32_t number, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_LOOP))
        return;
    if (number == 1 && c->step_not_taken) {
        c->step_not_taken = 0;
        return;
    }
    c->step_not_taken = 0;
    const int guests = !c->traps || c->guest_steps; /* TF was the guest's when the instruction began */
    if (number == 1 && c->traps && c->flags_loaded) {
        uint64_t flags;
        lib.uc_reg_read(c->uc, UC_X86_REG_RFLAGS, &flags);
        c->guest_steps = (flags & TF) != 0;
    }
    if (number == 1 && !guests && !c->word[STEP] && !c->word[WATCH_SIZE] && !c->word[WATCH2_SIZE]) {
        uint64_t flags, rip;
        lib.uc_reg_read(c->uc, UC_X86_REG_RIP, &rip);
        if (c->steps_to && c->steps_to - rip - 1 < LONGEST_BLOCK) { /* on the way to a fault */
            pause_blocks(counted(), end_of_block());
            return;
        }
        c->steps_to = 0;
        lib.uc_reg_read(c->uc, UC_X86_REG_RFLAGS, &flags); /* the access was not made in the end */
        flags &= ~(uint64_t)TF;
        lib.uc_reg_write(c->uc, UC_X86_REG_RFLAGS, &flags);
        c->traps = c->again = 0;
        pause_blocks(counted(), end_of_block());
        return;
    }
    lib.uc_context_save(c->uc, c->context);
    c->word[EXIT_VECTOR] = number;
    c->word[EXIT_ERROR_CODE] = number == 1 ? (uint64_t)guests : (uint32_t)context_word(c, c->at_error_code);
    c->word[EXIT_SOFTWARE] = context_word(c, c->at_is_software) != 0;
    if (context_word(c, c->at_old_exception) != -1) { /* or the next fault would be reported as a double fault */
        int32_t none = -1;
        memcpy((char *)c->context + c->at_old_exception, &none, sizeof none);
        lib.uc_context_restore(c->uc, c->context);
    }
    if (number == 14 && fetched_ahead(c))
        return;
    c->steps_to = 0;
    lib.uc_reg_read(c->uc, UC_X86_REG_CR2, &c->seen[CR2]);
    load_registers(c);
    if (c->word[EXIT_SOFTWARE] || number == 1) {
        /* int n and a single step report the next instruction: the one before it has retired and ended its block */
        c->word[RETIRED] = counted();
        if (number == 1 && !guests) {
            if (hot.current && one_more_iteration(c, hot.current->pc, hot.current->size))
                c->word[RIP] = hot.current->pc;
            pause_blocks(c->word[RETIRED], end_of_block());
        } else
            between_blocks(c->word[RETIRED]);
    } else {
        const uint64_t sequel = end_of_block();
        settle(c, c->word[RIP], 0, 1);
        if (deadline_before_fetch(c, sequel))
            return;
    }
    leave(c, EXIT_EXCEPTION, AT_LOOP);
}

/* Whether an `int $6` is there, which libunicorn takes for an undefined instruction. (In 32-bit code what would be a
 * REX prefix is an instruction of its own, and a defined one.) */
static int is_int6(const Core *c, uint64_t rip)
{
    const uint64_t at = machine_address(c, rip);
    if (at >= (uint64_t)c->ram.len)
        return 0;
    const uint8_t *code = (const uint8_t *)c->ram.buf + at;
    const int size = 0x1000 - (int)(at & 0xfff);
    const Prefixes p = read_prefixes(code, size, 1);
    return !p.locked && p.end + 1 < size && code[p.end] == 0xcd && code[p.end + 1] == 6;
}

bool on_invalid(uc_engine *uc, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_LOOP))
        return true;
    load_registers(c);
    settle(c, c->word[RIP], is_int6(c, c->word[RIP]), 1);
    leave(c, EXIT_INVALID, AT_LOOP);
    return true;
}

uint32_t on_in(uc_engine *uc, uint32_t port, int size, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_MIDDLE))
        return 0;
    load_registers(c);
    settle(c, c->word[RIP], 0, 0);
    c->word[EXIT_PORT] = port;
    c->word[EXIT_SIZE] = (uint64_t)size;
    c->word[EXIT_VALUE] = 0;
    leave(c, EXIT_IN, AT_MIDDLE);
    return (uint32_t)c->word[EXIT_VALUE];
}

void on_out(uc_engine *uc, uint32_t port, int size, uint32_t value, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_MIDDLE))
        return;
    load_registers(c);
    settle(c, c->word[RIP], 0, 0);
    c->word[EXIT_PORT] = port;
    c->word[EXIT_SIZE] = (uint64_t)size;
    c->word[EXIT_VALUE] = value;
    leave(c, EXIT_OUT, AT_MIDDLE);
}

int on_cpuid(uc_engine *uc, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_MIDDLE))
        return 1;
    load_registers(c);
    settle(c, c->word[RIP], 0, 0);
    leave(c, EXIT_CPUID, AT_MIDDLE);
    return 1;
}

int on_rdtsc(uc_engine *uc, void *data)
{
    Core *c = data;
    if (c->draining)
        return 1;
    uint64_t rip, tsc;
    lib.uc_reg_read(uc, UC_X86_REG_RIP, &rip);
    tsc = start_of_block() + retired_before(c, rip) + c->word[TIME_SKEW];
    uint64_t low = tsc & 0xffffffff, high = tsc >> 32;
    lib.uc_reg_write(uc, UC_X86_REG_RAX, &low);
    lib.uc_reg_write(uc, UC_X86_REG_RDX, &high);
    c->word[RDTSCS]++;
    return 1;
}

int on_rdtscp(uc_engine *uc, void *data)
{
    Core *c = data;
    int done = on_rdtsc(uc, data);
    if (!c->draining)
        lib.uc_reg_write(uc, UC_X86_REG_RCX, &c->word[TSC_AUX]);
    return done;
}

void on_stop_point(uc_engine *uc, uint64_t pc, uint32_t size, void *data)
{
    (void)uc, (void)size;
    Core *c = data;
    if (c->draining)
        return;
    const uint64_t retired = start_of_block() + retired_before(c, pc);
    if (pc == c->stopped_at && retired == c->stopped_when)
        return; /* it was told of already, and is begun only now */
    load_registers(c);
    c->word[RIP] = c->seen[RIP] = c->stopped_at = pc;
    c->word[RETIRED] = c->stopped_when = retired;
    c->begin_anew = 1;
    leave(c, EXIT_STOP_POINT, AT_BLOCK); /* as at a block's start, the instruction has not begun */
}

static int add_hook(Core *c, int type, void *callback, void *data, int instruction, uc_hook *out)
{
    uc_hook hook;
    uc_err e = instruction
        ? lib.uc_hook_add(c->uc, &hook, type, callback, data, (uint64_t)1, (uint64_t)0, instruction)
        : lib.uc_hook_add(c->uc, &hook, type, callback, data, (uint64_t)1, (uint64_t)0);
    if (out)
        *out = hook;
    if (e != UC_ERR_OK)
        fail("cannot add a hook", e);
    return e == UC_ERR_OK;
}

/* The block hook's user_data, found behind its callback in the hook object. */
static int find_block_data(Core *c, uc_hook hook, void *callback, void *data)
{
    void **words = (void **)hook;
    for (int i = 0; i < 12; i++)
        if (words[i] == callback && words[i + 1] == data) {
            c->block_data = &words[i + 1];
            return 1;
        }
    PyErr_SetString(engine_error, "unicorn engine: this build of libunicorn keeps hooks in an unknown form; use 2.1.4");
    return 0;
}

/* All hooks, on a CPU that was calibrated. */
int add_hooks(Core *c)
{
    uc_hook block;
    static char cookie;
    if (!add_hook(c, UC_HOOK_BLOCK, (void *)on_block, &cookie, 0, &block) ||
        !find_block_data(c, block, (void *)on_block, &cookie))
        return 0;
    fresh_slot(c);
    return add_hook(c, UC_HOOK_EDGE_GENERATED, (void *)on_edge, c, 0, NULL) &&
           add_hook(c, UC_HOOK_INTR, (void *)on_interrupt, c, 0, NULL) &&
           add_hook(c, UC_HOOK_INSN_INVALID, (void *)on_invalid, c, 0, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_syscall, c, UC_X86_INS_SYSCALL, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_sysenter, c, UC_X86_INS_SYSENTER, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_in, c, UC_X86_INS_IN, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_out, c, UC_X86_INS_OUT, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_cpuid, c, UC_X86_INS_CPUID, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_rdtsc, c, UC_X86_INS_RDTSC, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_rdtscp, c, UC_X86_INS_RDTSCP, NULL);
}
