/* Counting retired instructions, block by block (the law: _core.c). */
#include "core.h"

Slot *slot_at(Core *c, uint64_t index) { return &c->chunks[index / SLOTS_PER_CHUNK][index % SLOTS_PER_CHUNK]; }

void fresh_slot(Core *c)
{
    if (c->n_slots == c->n_chunks * SLOTS_PER_CHUNK) {
        c->chunks = realloc(c->chunks, (c->n_chunks + 1) * sizeof *c->chunks);
        c->chunks[c->n_chunks++] = calloc(SLOTS_PER_CHUNK, sizeof(Slot));
    }
    c->next_slot = slot_at(c, c->n_slots++);
    *c->block_data = c->next_slot;
}

uint64_t slot_index(Core *c, const Slot *slot)
{
    for (size_t i = c->n_chunks; i-- > 0;)
        if (slot >= c->chunks[i] && slot < c->chunks[i] + SLOTS_PER_CHUNK)
            return i * SLOTS_PER_CHUNK + (uint64_t)(slot - c->chunks[i]);
    return ~0ULL; /* the odd one: what is learnt of it is not kept */
}

static Learnt *learnt_find(Core *c, uint64_t slot, uint64_t pc)
{
    uint64_t h = (slot ^ pc) * 0x9E3779B97F4A7C15ULL;
    for (size_t i = h >> 20;; i++) {
        Learnt *l = &c->learnt[i & c->learnt_mask];
        if (!l->used || (l->slot == slot && l->pc == pc))
            return l;
    }
}

void learnt_add(Core *c, uint64_t slot, uint64_t pc, uint32_t count)
{
    if (c->learnt_used * 2 > c->learnt_mask) {
        Learnt *old = c->learnt;
        size_t n = c->learnt_mask + 1;
        c->learnt_mask = n * 2 - 1;
        c->learnt = calloc(n * 2, sizeof(Learnt));
        for (size_t i = 0; i < n; i++)
            if (old[i].used)
                *learnt_find(c, old[i].slot, old[i].pc) = old[i];
        free(old);
    }
    Learnt *l = learnt_find(c, slot, pc);
    c->learnt_used += !l->used;
    *l = (Learnt){slot, pc, count, 1};
}

uint64_t start_of_block(void) { return counted() - (hot.current ? hot.current->icount : 0); }

void set_deadline(uint64_t deadline)
{
    const uint64_t retired = counted();
    if (running->n_branches)
        deadline = 0; /* each block is a special one */
    hot.deadline = deadline < LAST_DEADLINE ? deadline : LAST_DEADLINE;
    hot.left = (int64_t)(hot.deadline - retired);
}

/* The running block was left, and what runs next at `sequel` is not jumped to. */
void pause_blocks(uint64_t retired, uint64_t sequel)
{
    hot.left = (int64_t)(hot.deadline - retired);
    hot.current = NULL;
    running->sequel = sequel;
}

/* The running block is over, wherever it was left. */
void between_blocks(uint64_t retired) { pause_blocks(retired, NOWHERE); }

/* Where the guest runs on if it does not jump. */
uint64_t end_of_block(void) { return hot.current ? hot.current->pc + hot.current->size : running->sequel; }

/* All translated code was dropped, and with it whatever refers to a slot. */
void forget_blocks(Core *c)
{
    pause_blocks(counted(), end_of_block());
    memset(c->learnt, 0, (c->learnt_mask + 1) * sizeof *c->learnt);
    c->learnt_used = 0;
    for (size_t i = 0; i < c->n_chunks; i++)
        memset(c->chunks[i], 0, SLOTS_PER_CHUNK * sizeof(Slot));
    c->n_slots = 0;
    c->generated = NULL;
    fresh_slot(c);
}

/* Where RIP leads in a code segment that may not begin at 0. */
static uint64_t behind_code_base(Core *c, uint64_t rip)
{
    uint64_t base;
    lib.uc_context_save(c->uc, c->context);
    memcpy(&base, (const char *)c->context + c->at_code_base, sizeof base);
    return base ? (uint32_t)(rip + base) : rip;
}

/* How many instructions of the running block lie before `pc`; asks the caller the first time. */
uint32_t retired_before(Core *c, uint64_t pc)
{
    if (!hot.current)
        return 0;
    if (pc - hot.current->pc >= hot.current->size)
        pc = behind_code_base(c, pc);
    if (pc == hot.current->pc)
        return 0;
    if (pc - hot.current->pc >= hot.current->size)
        return hot.current->icount; /* the fault came while fetching the next block: this one retired whole */
    uint64_t index = slot_index(c, hot.current);
    Learnt *l = learnt_find(c, index, pc);
    if (!l->used || index == ~0ULL) {
        c->word[LEARN_SLOT] = index;
        c->word[LEARN_START] = hot.current->pc;
        c->word[LEARN_END] = pc;
        c->word[LEARN_SIZE] = 0;
        c->exit_kind = EXIT_LEARN;
        switch_to_caller(c);
        l = learnt_find(c, index, pc);
    }
    return l->used ? l->count : 0;
}

/* A store into the block that runs: libunicorn drops the block, and goes on at the store in another one. */
EXPORT void cpu_loop_exit_noexc_x86_64(void *cpu)
{
    Core *c = running;
    uint64_t rip;
    if (inside && !c->draining && hot.current) {
        lib.uc_reg_read(c->uc, UC_X86_REG_RIP, &rip);
        if (rip - hot.current->pc < hot.current->size)
            pause_blocks(start_of_block() + retired_before(c, rip), rip);
    }
    own.leave_loop(cpu); /* does not return */
}

/* Settles the clock at an exit whose instruction begins at `pc`; `done` of it (0 or 1) has retired. */
void settle(Core *c, uint64_t pc, int done, int block_ends)
{
    uint32_t before = retired_before(c, pc);
    c->word[RETIRED] = start_of_block() + before + (uint64_t)done;
    if (block_ends)
        between_blocks(c->word[RETIRED]);
}

/* Everything but the common case: a deadline, a block that drains, a block whose count is not known. */
static __attribute__((noinline)) void on_special_block(uint64_t pc, uint32_t size, Slot *slot)
{
    Core *c = running;
    if (drained(c, AT_BLOCK))
        return;
    if (c->flush_code) {
        drop_code(c);
        set_deadline(c->word[DEADLINE]);
        leave_block(c, pc);
    }
    if (slot == c->next_slot) { /* translated without an edge: claim the slot */
        *slot = (Slot){pc, size, 0};
        fresh_slot(c);
    }
    int taken = pc != end_of_block();
    if (taken && deadline_reached(c)) {
        load_registers(c);
        c->word[RIP] = c->seen[RIP] = pc;
        c->word[RETIRED] = counted();
        leave(c, EXIT_DEADLINE, AT_BLOCK);
        if (c->word[RIP] != pc || c->word[CR3] != c->seen[CR3])
            return; /* this block will not run */
    }
    if (slot->pc != pc || !slot->icount) {
        c->word[LEARN_SLOT] = slot_index(c, slot);
        c->word[LEARN_START] = pc;
        c->word[LEARN_END] = 0;
        c->word[LEARN_SIZE] = size;
        c->word[EXIT_VALUE] = 0;
        c->exit_kind = EXIT_LEARN;
        switch_to_caller(c); /* the answer comes back in EXIT_VALUE */
        if (slot->pc != pc)
            slot = &c->odd; /* two blocks were given one slot */
        *slot = (Slot){pc, size, (uint32_t)c->word[EXIT_VALUE]};
    }
    if (taken)
        note_branch(c, pc);
    hot.left -= slot->icount;
    hot.current = slot;
}

/* The block hook. Where translated code counts by itself (inline.c) only the special case comes here, with size 0. */
void on_block(uc_engine *uc, uint64_t pc, uint32_t size, void *data)
{
    (void)uc;
    Slot *slot = data;
    if (!size) {
        hot.left += slot->icount; /* it was counted already */
        on_special_block(pc, slot->size, slot);
        return;
    }
    if (__builtin_expect(slot->pc != pc || !slot->icount || hot.left <= 0, 0)) {
        on_special_block(pc, size, slot);
        return;
    }
    hot.left -= slot->icount;
    hot.current = slot;
}

void on_edge(uc_engine *uc, uc_tb *block, uc_tb *previous, void *data)
{
    (void)uc, (void)previous;
    Core *c = data;
    if (c->generated) { /* it counts by itself */
        c->generated = NULL;
        return;
    }
    check_layout(block);
    *c->next_slot = (Slot){block->pc, block->size, block->icount};
    fresh_slot(c);
}
