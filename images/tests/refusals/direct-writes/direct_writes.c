/* With the assist writable_pagetables a store to a level 1 table, which the kernel has mapped read-only, is checked
   and made for it. What is refused is the page fault that the store had been (pv/ro-page-fault.c).

   A store is made when it is of at most 8 bytes, aligned, within the page, by the guest's kernel, and when the whole
   entry that comes of it could have been given to mmu_update. */
#include "kit.h"

#define AREA TEST_AREA(3)
#define WRITE_TO_PRESENT 3 /* the page fault's code; the kernel is not user code, though it may run in ring 3 */

static volatile u64 *table1; /* the L1 table of AREA, read-only */
static u64 data;             /* an entry that is good there */
static void *target;

static void set_assist(int on)
{
    MUST(hypercall(VM_ASSIST, on ? 0 : 1, 2));
}

static word nobody; /* a frame without an owner */

static void set_up(void)
{
    nobody = freed_frame();
    make_path(AREA);
    table1 = table_at((entry(AREA, 2) & ~ENTRY_FLAGS) / PAGE);
    target = page();
    watch(target);
    data = address_of(target) | DATA;
    set_assist(1);
}

/* The instruction went through and the entry is this now. */
static void made(const char *name, int taken, volatile u64 *where, u64 wanted)
{
    if (taken)
        check(0, name, "trap %u, code %lx, CR2 %p", fault.vector, fault.code, (void *)fault.cr2);
    else
        check(*where == wanted, name, "0x%llx instead of 0x%llx", *where, wanted);
}

#if BITS == 64
VARIATION(forms, "every form of store that kernels use")
{
    set_up();
    volatile u64 *at = table1 + 7;
    u64 value = data, zero = 0, old;
    made("mov, 8 bytes", TRY("movq %1, %0", : "=m"(*at) : "r"(value)), at, value);
    made("mov, 4 bytes", TRY("movl $0, %0", : "=m"(*at)), at, value & ~0xffffffffull);
    made("mov, the upper 4 bytes", TRY("movl $0, 4(%0)", : : "r"(at) : "memory"), at, 0);
    made("mov, 2 bytes", TRY("movw $0x60, %0", : "=m"(*at)), at, 0x60);
    made("mov, 1 byte", TRY("movb $0x11, 3(%0)", : : "r"(at) : "memory"), at, 0x11000060);
    old = value;
    made("xchg", TRY("xchgq %1, %0", : "+m"(*at), "+r"(old)), at, value);
    check_equal(old, 0x11000060, "it gives what was there");
    old = value;
    int equal;
    made("lock cmpxchg that finds what it wants",
         TRY("lock cmpxchgq %3, %0", : "+m"(*at), "+a"(old), "=@cce"(equal) : "r"(zero)), at, 0);
    MUST(update(entry_address(AREA, 1) + 56, value));
    old = 1;
    made("lock cmpxchg that does not",
         TRY("lock cmpxchgq %3, %0", : "+m"(*at), "+a"(old), "=@cce"(equal) : "r"(zero)), at, value);
    check(old == value && !equal, "it gives what is there", "0x%llx, ZF %d", old, equal);
    made("cmpxchg without lock", TRY("cmpxchgq %2, %0", : "+m"(*at), "+a"(old) : "r"(zero)), at, 0);
    u32 low = 0, high = 0;
    made("cmpxchg8b", TRY("lock cmpxchg8b %0", : "+m"(*at), "+a"(low), "+d"(high)
                          : "b"((u32)value), "c"((u32)(value >> 32))), at, value);
    made("lock and", TRY("lock andq $-3, %0", : "+m"(*at)), at, value & ~(u64)RW);
    made("lock or", TRY("lock orq $0x40, %0", : "+m"(*at)), at, (value & ~(u64)RW) | D);
    made("lock btr", TRY("lock btrq $5, %0", : "+m"(*at)), at, (value & ~(u64)(RW | A)) | D);
    made("lock bts", TRY("lock btsq $1, %0", : "+m"(*at)), at, (value & ~(u64)A) | D);
    made("lock and, 1 byte", TRY("lock andb $0xfd, %0", : "+m"(*at)), at, (value & ~(u64)(RW | A)) | D);
    made("or without lock", TRY("orq $2, %0", : "+m"(*at)), at, (value & ~(u64)A) | D);
    made("0 by mov", TRY("movq $0, %0", : "=m"(*at)), at, 0);
    check_single_reference(target, "the target has one reference");
}

#define STORE(value, place) TRY("movq %0, (%1)", : : "r"((u64)(value)), "r"(place) : "memory")
#else
/* A PAE guest changes an entry by halves, the one with the P bit last, or whole by cmpxchg8b. */
VARIATION(forms, "every form of store that kernels use")
{
    set_up();
    volatile u64 *at = table1 + 7;
    u64 value = data;
    u32 low = value, high = value >> 32, was = 0;
    int equal;
    made("mov, the upper half", TRY("movl %1, 4(%0)", : : "r"(at), "r"(high) : "memory"), at, (u64)high << 32);
    made("mov, the lower half", TRY("movl %1, (%0)", : : "r"(at), "r"(low) : "memory"), at, value);
    made("mov, 0 to the lower half", TRY("movl $0, %0", : "=m"(*at)), at, value & ~0xffffffffull);
    made("mov, 2 bytes", TRY("movw $0x60, %0", : "=m"(*at)), at, (u64)high << 32 | 0x60);
    made("mov, 1 byte", TRY("movb $0x11, 3(%0)", : : "r"(at) : "memory"), at, (u64)high << 32 | 0x11000060);
    was = low;
    made("xchg", TRY("xchgl %1, %0", : "+m"(*at), "+r"(was)), at, value);
    check_equal(was, 0x11000060, "it gives what was there");
    was = low;
    made("lock cmpxchg that finds what it wants",
         TRY("lock cmpxchgl %3, %0", : "+m"(*at), "+a"(was), "=@cce"(equal) : "r"(0)), at, (u64)high << 32);
    MUST(update(entry_address(AREA, 1) + 56, value));
    was = 1;
    made("lock cmpxchg that does not",
         TRY("lock cmpxchgl %3, %0", : "+m"(*at), "+a"(was), "=@cce"(equal) : "r"(0)), at, value);
    check(was == low && !equal, "it gives what is there", "0x%x, ZF %d", was, equal);
    MUST(update(entry_address(AREA, 1) + 56, 0));
    u32 old_low = 0, old_high = 0;
    made("cmpxchg8b", TRY("lock cmpxchg8b %0", : "+m"(*at), "+a"(old_low), "+d"(old_high) : "b"(low), "c"(high)), at,
         value);
    made("lock and", TRY("lock andl $-3, %0", : "+m"(*at)), at, value & ~(u64)RW);
    made("lock or", TRY("lock orl $0x40, %0", : "+m"(*at)), at, (value & ~(u64)RW) | D);
    made("lock btr", TRY("lock btrl $5, %0", : "+m"(*at)), at, (value & ~(u64)(RW | A)) | D);
    made("lock bts", TRY("lock btsl $1, %0", : "+m"(*at)), at, (value & ~(u64)A) | D);
    made("lock and, 1 byte", TRY("lock andb $0xfd, %0", : "+m"(*at)), at, (value & ~(u64)(RW | A)) | D);
    made("or without lock", TRY("orl $2, %0", : "+m"(*at)), at, (value & ~(u64)A) | D);
    made("0 by mov", TRY("movl $0, %0", : "=m"(*at)), at, value & ~0xffffffffull);
    check_single_reference(target, "the target has one reference");
}

/* A whole entry; where nothing can be read, it is the reading that faults. */
#define STORE(value, place)                                                                            \
    ({                                                                                                 \
        u64 new_ = (value);                                                                            \
        const volatile u64 *place_ = (const volatile u64 *)(place);                                    \
        u32 low_ = *place_, high_ = *place_ >> 32;                                                     \
        TRY("lock cmpxchg8b (%2)", : "+a"(low_), "+d"(high_) : "S"(place_), "b"((u32)new_), "c"((u32)(new_ >> 32)) \
            : "memory");                                                                               \
    })
#endif

VARIATION(entries, "an entry that is refused is the page fault that the store was")
{
    set_up();
    volatile u64 *at = table1 + 9;
    word cr2 = (word)at;
    word root = root_mfn();
    REFUSED_BY_TRAP("PCD", PF, WRITE_TO_PRESENT, cr2, STORE(data | PCD, at));
    REFUSED_BY_TRAP("PWT", PF, WRITE_TO_PRESENT, cr2, STORE(data | PWT, at));
    REFUSED_BY_TRAP("PAT", PF, WRITE_TO_PRESENT, cr2, STORE(data | PAT, at));
    REFUSED_BY_TRAP("no RAM", PF, WRITE_TO_PRESENT, cr2, STORE(frame_address(NO_RAM) | DATA, at));
    REFUSED_BY_TRAP("the invalid frame", PF, WRITE_TO_PRESENT, cr2, STORE(frame_address(INVALID_FRAME) | DATA, at));
    REFUSED_BY_TRAP("nobody's frame", PF, WRITE_TO_PRESENT, cr2, STORE(frame_address(nobody) | DATA_RO, at));
    REFUSED_BY_TRAP("the root, writable", PF, WRITE_TO_PRESENT, cr2, STORE(frame_address(root) | DATA, at));
    REFUSED_BY_TRAP("the table itself, writable", PF, WRITE_TO_PRESENT, cr2,
                    STORE((entry(AREA, 2) & ~ENTRY_FLAGS) | DATA, at));
    word old = 0;
    REFUSED_BY_TRAP("PCD by cmpxchg", PF, WRITE_TO_PRESENT, cr2,
                    TRY("lock cmpxchg" W " %2, (%1)", : "+a"(old) : "r"(at), "r"((word)data | PCD) : "memory"));
    REFUSED_BY_TRAP("PCD by xchg", PF, WRITE_TO_PRESENT, cr2,
                    TRY("xchg" W " %0, (%1)", : : "r"((word)data | PCD), "r"(at) : "memory"));
    made("a good one", STORE(data, at), at, data);
    REFUSED_BY_TRAP("PCD added by lock or", PF, WRITE_TO_PRESENT, cr2,
                    TRY("lock or" W " $16, (%0)", : : "r"(at) : "memory"));
    REFUSED_BY_TRAP("PCD added by lock bts", PF, WRITE_TO_PRESENT, cr2,
                    TRY("lock bts" W " $4, (%0)", : : "r"(at) : "memory"));
    REFUSED_BY_TRAP("PCD added by a byte", PF, WRITE_TO_PRESENT, cr2,
                    TRY("movb $0x37, (%0)", : : "r"(at) : "memory"));
#if BITS == 64
    REFUSED_BY_TRAP("another frame by its upper half", PF, WRITE_TO_PRESENT, cr2 + 4,
                    TRY("movl $0x7fff, 4(%0)", : : "r"(at) : "memory"));
#else
    made("another frame by its upper half, and not present", TRY("movl $0x7fff, 4(%0)", : : "r"(at) : "memory"), at,
         0x7fff00000000 | (u32)(data & ~1ull));
#endif
    MUST(update(entry_address(AREA, 1) + 72, address_of(target) | DATA_RO));
    MUST(update(entry_address(AREA, 1) + 80, frame_address(root) | DATA_RO));
    REFUSED_BY_TRAP("write access to the root added by a byte", PF, WRITE_TO_PRESENT, cr2 + 8,
                    TRY("orb $2, (%0)", : : "r"(at + 1) : "memory"));
    made("anything that is not present", STORE(0x7ffffffffffff0fe & ~1ull, at), at, 0x7ffffffffffff0fe);
    MUST(update(entry_address(AREA, 1) + 72, 0));
    check_single_reference(target, "the target has one reference");
}

VARIATION(places, "which stores are looked at")
{
    set_up();
    word start = (word)table1, next;
    /* The page behind the table, so that a store can cross: the allocator hands out neighbours. */
    void *behind = (void *)(start + PAGE);
    next = (word)behind;
    u64 *table2 = table_at((entry(AREA, 3) & ~ENTRY_FLAGS) / PAGE);
    u64 *root = table_at(root_mfn());
    REFUSED_BY_TRAP("8 bytes, not aligned", PF, WRITE_TO_PRESENT, start + 20, STORE(0, start + 20));
    REFUSED_BY_TRAP("4 bytes, not aligned", PF, WRITE_TO_PRESENT, start + 18,
                    TRY("movl $0, (%0)", : : "r"(start + 18) : "memory"));
    REFUSED_BY_TRAP("2 bytes, not aligned", PF, WRITE_TO_PRESENT, start + 17,
                    TRY("movw $0, (%0)", : : "r"(start + 17) : "memory"));
    if (entry(next, 1) & RW)
        REFUSED_BY_TRAP("8 bytes across the table's end", PF, WRITE_TO_PRESENT, next - 4, STORE(0, next - 4));
    REFUSED_BY_TRAP("16 bytes", PF, WRITE_TO_PRESENT, start + 32,
                    TRY("movaps %%xmm0, (%0)", : : "r"(start + 32) : "memory"));
    REFUSED_BY_TRAP("an L2 table", PF, WRITE_TO_PRESENT, (word)(table2 + 30), STORE(0, table2 + 30));
#if BITS == 64
    REFUSED_BY_TRAP("16 bytes by cmpxchg16b", PF, WRITE_TO_PRESENT, start + 32,
                    TRY("lock cmpxchg16b (%0)", : : "r"(start + 32), "a"(0ul), "d"(0ul), "b"(0ul), "c"(0ul)
                        : "memory"));
    u64 *table3 = table_at((entry(AREA, 4) & ~ENTRY_FLAGS) / PAGE);
    REFUSED_BY_TRAP("an L3 table", PF, WRITE_TO_PRESENT, (word)(table3 + 30), STORE(0, table3 + 30));
#endif
    REFUSED_BY_TRAP("the root", PF, WRITE_TO_PRESENT, (word)(root + 3), STORE(0, root + 3));
    u64 *readable = table();
    REFUSED_BY_TRAP("a page that is only readable", PF, WRITE_TO_PRESENT, (word)readable, STORE(0, readable));
    REFUSED_BY_TRAP("Xen's M2P", PF, WRITE_TO_PRESENT, (word)M2P, STORE(0, M2P));
    set_assist(0);
    REFUSED_BY_TRAP("an L1 table without the assist", PF, WRITE_TO_PRESENT, start + 8, STORE(0, start + 8));
    set_assist(1);
    made("an L1 table with it", STORE(data, start + 8), table1 + 1, data);
    MUST(update(entry_address(AREA, 1) + 8, 0));
}

/* void store_and_return(u64 *where): user code. */
asm(".pushsection .user, \"ax\"\n"
#if BITS == 64
    "store_and_return: movq $0, (%rdi)\n"
    "syscall\n"
#else
    "store_and_return: movl $0, (%edi)\n"
    "int $0x80\n"
#endif
    ".popsection");
extern const char store_and_return[];

VARIATION(user_code, "user code's stores are its own faults")
{
    set_up();
    make_user();
    word window = USER_DATA + PAGE;
    MUST(update(entry_address(window, 1), address_of((void *)table1) | P | US));
    user(store_and_return, window + 64);
    check(fault.vector == PF && fault.code == (WRITE_TO_PRESENT | 4) && fault.cr2 == window + 64,
          "user code that writes to an L1 table", "trap %u, code %lx, CR2 %p", fault.vector, fault.code,
          (void *)fault.cr2);
    check(fault.from_user && fault.frame.rip == user_address(store_and_return), "the fault is where the store is",
          "rip %p", (void *)fault.frame.rip);
    check_equal(table1[8], 0, "the entry is as it was");
}
