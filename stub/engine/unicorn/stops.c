/* Stopping where somebody looks: before an instruction, after an access to memory, after one instruction.
 *
 * Stop points. libunicorn calls a code hook before each instruction in the hook's bounds, and looks at the bounds when it
 * translates. There is one hook, and its bounds follow the translation: they hold the next stop point at or after the
 * instruction that is translated. So ten thousand stop points cost no more than one, and nothing elsewhere.
 *
 * Watched memory. A page that holds some is marked in the TLB when it goes in, and only accesses to such pages take a
 * slower path, on which libunicorn calls cpu_check_watchpoint (empty in its build) before the access. An instruction
 * about to touch watched memory is cut off there and run again alone, with TF set; this time the access is noted, and
 * the #DB behind the instruction tells.
 *
 * TF set by us is never the guest's to see: what reads the flags is given the guest's own, and what loads them tells
 * us. */
#include "core.h"
#include "stub/engine/prefixes.h"

/* The first stop point at or after `address`; NOWHERE without one. */
static uint64_t next_stop(const Core *c, uint64_t address)
{
    const size_t at = stops_below(&c->stops, address);
    return at < c->stops.n ? c->stops.addresses[at] : NOWHERE;
}

static void bound(Core *c, uint64_t stop) { c->stop_bounds[0] = c->stop_bounds[1] = stop; }

static int translation_comes_by; /* libunicorn calls the function below, as its symbols allow */

/* A block is translated; its descriptor begins with its address (inline.c compares that with what libunicorn tells). */
EXPORT void gen_intermediate_code_x86_64(void *cpu, void *block, int most)
{
    translation_comes_by = 1;
    if (inside && running->stop_bounds) {
        uint64_t pc;
        memcpy(&pc, block, sizeof pc);
        bound(running, next_stop(running, pc));
    }
    own.translate(cpu, block, most);
}

/* The hook's call was generated for the stop point that the bounds hold. */
void note_stop_generated(void)
{
    Core *c = running;
    bound(c, next_stop(c, c->stop_bounds[0] + 1));
}

/* Between blocks only: drops all translated code. */
void drop_code(Core *c)
{
    c->flush_code = 0;
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TB_FLUSH, 0));
    forget_blocks(c);
}

/* Whether a repeated string instruction at `pc`, just stepped, would have looked at its count once more. With TF set
 * libunicorn leaves it when RCX gets to 0, without TF it goes round again to find RCX at 0, and counts that. */
int one_more_iteration(const Core *c, uint64_t pc, uint32_t size)
{
    uint8_t code[15];
    if (c->word[RIP] == pc || !c->left_before || size > sizeof code)
        return 0;
    for (uint32_t i = 0; i < size; i++) {
        const uint64_t at = machine_address(c, pc + i);
        if (at >= (uint64_t)c->ram.len)
            return 0;
        code[i] = ((const uint8_t *)c->ram.buf)[at];
    }
    return length_if_ran_out(code, (int)size, 1, c->word[RFLAGS], c->word[RCX]) == (int)size;
}

/* The hook, and where in libunicorn's hook object its bounds are: before the callback. */
static int add_stop_hook(Core *c)
{
    if (!translation_comes_by) {
        PyErr_SetString(engine_error, "unicorn engine: this build of libunicorn cannot be told where to stop; use 2.1.4");
        return 0;
    }
    const uint64_t first = 0x1234567812345678, last = 0x1234567812345679;
    uc_hook hook;
    uc_err e = lib.uc_hook_add(c->uc, &hook, UC_HOOK_CODE, (void *)on_stop_point, c, first, last);
    if (e != UC_ERR_OK)
        return fail("cannot add a stop point", e), 0;
    uint64_t *words = (uint64_t *)hook;
    for (int i = 0; i < 12; i++)
        if (words[i] == first && words[i + 1] == last && words[i + 2] == (uint64_t)(uintptr_t)on_stop_point) {
            c->stop_bounds = &words[i];
            bound(c, NOWHERE);
            return 1;
        }
    PyErr_SetString(engine_error, "unicorn engine: this build of libunicorn keeps hooks in an unknown form; use 2.1.4");
    return 0;
}

PyObject *core_stop_at(Core *c, PyObject *addresses)
{
    Stops stops;
    if (!c->uc)
        return fail("a stop point after the end", UC_ERR_HANDLE);
    if (!stops_read(&stops, addresses))
        return NULL;
    if (stops.n && !c->stop_bounds && !add_stop_hook(c)) {
        stops_free(&stops);
        return NULL;
    }
    stops_free(&c->stops);
    c->stops = stops;
    c->flush_code = 1;
    Py_RETURN_NONE;
}

PyObject *core_watch(Core *c, PyObject *ranges)
{
    if (!c->uc)
        return fail("a watch after the end", UC_ERR_HANDLE);
    PyObject *list = PySequence_List(ranges);
    if (!list)
        return NULL;
    const size_t n = (size_t)PyList_Size(list);
    Watched *watched = malloc((n + 1) * sizeof *watched);
    for (size_t i = 0; watched && i < n; i++) {
        unsigned long long first, last;
        if (!PyArg_ParseTuple(PyList_GetItem(list, (Py_ssize_t)i), "KKiii", &first, &last, &watched[i].access,
                              &watched[i].machine, &watched[i].second))
            break;
        watched[i].first = first;
        watched[i].last = last;
    }
    Py_DECREF(list);
    if (!watched)
        return PyErr_NoMemory();
    if (PyErr_Occurred()) {
        free(watched);
        return NULL;
    }
    free(c->watched);
    c->watched = watched;
    c->n_watched = n;
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TLB_FLUSH, 0)); /* pages are marked as they come in again */
    forget_translations(c);
    Py_RETURN_NONE;
}

/* How the range [first, last] is watched, ACCESS_READ and ACCESS_WRITE, by ranges of the first group, and four bits up
 * by those of the second; `machine` is where it lies, NOWHERE: not known. */
enum { SECOND = 4 };
static int watched(const Core *c, uint64_t first, uint64_t last, uint64_t machine)
{
    int access = 0;
    for (size_t i = 0; i < c->n_watched; i++) {
        const Watched *w = &c->watched[i];
        const uint64_t from = w->machine ? machine : first;
        if ((!w->machine || machine != NOWHERE) && from <= w->last && from + (last - first) >= w->first)
            access |= w->access << (w->second ? SECOND : 0);
    }
    return access;
}

/* How the page that goes into the TLB is watched. */
EXPORT int cpu_watchpoint_address_matches_x86_64(void *cpu, uint64_t page, uint64_t size)
{
    (void)cpu;
    if (!inside || !running->n_watched)
        return 0;
    page &= ~0xfffULL;
    const int access = watched(running, page, page + size - 1, running->filling);
    return (access | access >> SECOND) & (ACCESS_READ | ACCESS_WRITE);
}

/* The CPU steps from here on, whatever the guest's own flag is. */
void step_hidden(Core *c)
{
    uint64_t flags;
    lib.uc_reg_read(c->uc, UC_X86_REG_RFLAGS, &flags);
    c->guest_steps = (flags & TF) != 0;
    flags |= TF;
    lib.uc_reg_write(c->uc, UC_X86_REG_RFLAGS, &flags);
    lib.uc_reg_read(c->uc, UC_X86_REG_RCX, &c->left_before);
    c->traps = 1;
    c->flags_loaded = 0;
}

/* Before an access to a page that is watched. */
EXPORT void cpu_check_watchpoint_x86_64(void *cpu, uint64_t address, uint64_t size, uint32_t attributes, int access,
                                        uintptr_t from)
{
    (void)attributes;
    Core *c = running;
    if (!inside || c->draining || !size || !own.restore_state || !own.leave_block)
        return;
    const int groups = watched(c, address, address + size - 1, machine_address(c, address)) &
                       (access | access << SECOND);
    if (!groups)
        return;
    uint64_t flags, rip;
    lib.uc_reg_read(c->uc, UC_X86_REG_RFLAGS, &flags);
    if (flags & TF) {
        for (int group = 0; group < 2; group++) {
            uint64_t *kept = &c->word[group ? WATCH2_ADDRESS : WATCH_ADDRESS]; /* address, size, write */
            if (groups >> group * SECOND & access && (!kept[1] || (access == ACCESS_WRITE && !kept[2]))) {
                kept[0] = address;
                kept[1] = size;
                kept[2] = access == ACCESS_WRITE;
            }
        }
        return;
    }
    own.restore_state(cpu, from, true);
    lib.uc_reg_read(c->uc, UC_X86_REG_RIP, &rip);
    const uint64_t retired = start_of_block() + retired_before(c, rip);
    pause_blocks(retired, rip);
    step_hidden(c);
    c->again = 1;
    leave_block(c, rip); /* does not return */
}

EXPORT uint64_t helper_read_eflags_x86_64(void *state)
{
    const uint64_t flags = own.read_flags(state);
    return inside && running->traps && !running->guest_steps ? flags & ~(uint64_t)TF : flags;
}

EXPORT void helper_write_eflags_x86_64(void *state, uint64_t flags, uint32_t mask)
{
    if (inside)
        running->flags_loaded = 1;
    own.write_flags(state, flags, mask);
}

EXPORT void helper_iret_protected_x86_64(void *state, int shift, int next)
{
    if (inside)
        running->flags_loaded = 1;
    own.interrupt_return(state, shift, next);
}
