/* Ways past libunicorn's slow paths, by symbol interposition (the law: _core.c). */
#include "core.h"

int inside; /* the engine's stack is running, for the core `running` */

struct own_functions own;

/* Generates a call in translated code. */
EXPORT void tcg_gen_callN_x86_64(void *context, void *function, void *result, int count, void **arguments)
{
    if (inside && (function == (void *)own.leave_block ||
                   (function == (void *)on_block && count_inline(context, arguments))))
        return;
    if (inside && function == (void *)on_stop_point)
        note_stop_generated();
    own.call(context, function, result, count, arguments);
}

/* Reads 64 bits of machine memory (the page walk's loads). */
EXPORT uint64_t address_space_ldq_x86_64(void *uc, void *space, uint64_t address, uint32_t attributes, uint32_t *result)
{
    if (inside && address + 8 <= (uint64_t)running->ram.len) {
        uint64_t value;
        memcpy(&value, (const char *)running->ram.buf + address, sizeof value);
        if (result)
            *result = 0;
        return value;
    }
    return own.load(uc, space, address, attributes, result);
}

/* Writes 32 bits of machine memory (the page walk sets accessed and dirty bits with it). */
EXPORT void address_space_stl_notdirty_x86_64(void *uc, void *space, uint64_t address, uint32_t value,
                                              uint32_t attributes, uint32_t *result)
{
    if (inside && address + 4 <= (uint64_t)running->ram.len) {
        memcpy((char *)running->ram.buf + address, &value, sizeof value);
        if (result)
            *result = 0;
        return;
    }
    own.store(uc, space, address, value, attributes, result);
}

/* The memory region that an address lies in: guest memory is one. */
EXPORT void *find_memory_mapping_x86_64(void *uc, uint64_t address)
{
    if (inside && address < (uint64_t)running->ram.len) {
        if (!running->region)
            running->region = own.region(uc, address);
        return running->region;
    }
    return own.region(uc, address);
}

/* A store to a page that may be executed takes libunicorn ten times as long, for fear that it changes code. Of the
 * pages that are writable and executable few are ever executed, so such a page gets into the TLB as executable only
 * once an instruction was fetched from it. */
enum { PROT_W = 2, PROT_X = 4, ACCESS_FETCH = 2 };
static int fill_access;

EXPORT bool x86_cpu_tlb_fill_x86_64(void *cpu, uint64_t address, int size, int access, int mmu_index, bool probe,
                                    uintptr_t from)
{
    fill_access = access;
    return own.fill(cpu, address, size, access, mmu_index, probe, from);
}

EXPORT void tlb_set_page_with_attrs_x86_64(void *cpu, uint64_t address, uint64_t machine_address, uint32_t attributes,
                                           int protection, int mmu_index, uint64_t size)
{
    if (inside && machine_address < (uint64_t)running->ram.len) {
        uint8_t *executed = &running->executed[machine_address >> 12];
        if (fill_access == ACCESS_FETCH)
            *executed = 1;
        else if (!*executed && (protection & PROT_W))
            protection &= ~PROT_X;
    }
    if (inside) {
        note_translation(running, cpu, address);
        running->filling = machine_address & ~0xfffULL;
    }
    own.set_page(cpu, address, machine_address, attributes, protection, mmu_index, size);
}

/* rdrand: not offered, and so undefined; what it would give is the host's, and differs from run to run. */
EXPORT uint64_t helper_rdrand_x86_64(void *state)
{
    if (inside && own.raise)
        own.raise(state, 6, (uintptr_t)__builtin_return_address(0)); /* does not return */
    return own.random(state);
}

/* Our own functions are put before libunicorn's by making this library a global one before that is loaded. */
void come_first(void)
{
    Dl_info info;
    if (dladdr((void *)come_first, &info))
        dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
}

void find_own_functions(void *handle)
{
    own.call = (__typeof__(own.call))dlsym(handle, "tcg_gen_callN_x86_64");
    own.load = (__typeof__(own.load))dlsym(handle, "address_space_ldq_x86_64");
    own.store = (__typeof__(own.store))dlsym(handle, "address_space_stl_notdirty_x86_64");
    own.region = (__typeof__(own.region))dlsym(handle, "find_memory_mapping_x86_64");
    own.fill = (__typeof__(own.fill))dlsym(handle, "x86_cpu_tlb_fill_x86_64");
    own.set_page = (__typeof__(own.set_page))dlsym(handle, "tlb_set_page_with_attrs_x86_64");
    own.flush = (__typeof__(own.flush))dlsym(handle, "tlb_flush_x86_64");
    own.drop_page = (__typeof__(own.drop_page))dlsym(handle, "tlb_flush_page_x86_64");
    own.set_dirty = (__typeof__(own.set_dirty))dlsym(handle, "tlb_set_dirty_x86_64");
    own.reset_dirty = (__typeof__(own.reset_dirty))dlsym(handle, "tlb_reset_dirty_by_vaddr_x86_64");
    own.random = (__typeof__(own.random))dlsym(handle, "helper_rdrand_x86_64");
    own.read_flags = (__typeof__(own.read_flags))dlsym(handle, "helper_read_eflags_x86_64");
    own.write_flags = (__typeof__(own.write_flags))dlsym(handle, "helper_write_eflags_x86_64");
    own.interrupt_return = (__typeof__(own.interrupt_return))dlsym(handle, "helper_iret_protected_x86_64");
    own.translate = (__typeof__(own.translate))dlsym(handle, "gen_intermediate_code_x86_64");
    own.restore_state = (__typeof__(own.restore_state))dlsym(handle, "cpu_restore_state_x86_64");
    own.raise = (__typeof__(own.raise))dlsym(handle, "raise_exception_ra_x86_64");
    find_translator(handle);
    own.leave_loop = (__typeof__(own.leave_loop))dlsym(handle, "cpu_loop_exit_noexc_x86_64");
    own.leave_block = (__typeof__(own.leave_block))dlsym(handle, "helper_check_exit_request_x86_64");
}

