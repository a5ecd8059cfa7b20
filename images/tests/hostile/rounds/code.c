/* Instructions (pieces.S) in the kernel and in user mode, and frames for iret. */
#include "hostile.h"

struct piece {
    const u8 *from, *to;
};
#if BITS == 64
struct iret_frame {
    word rax, r11, rcx, flags, rip, cs, rflags, rsp, ss;
};
#else
struct iret_frame {
    word rax, rip, cs, rflags, rsp, ss;
};
#endif
extern const struct piece pieces[], pieces_end[];
extern word piece_registers[10]; /* rax, rcx, rdx, rbx, rsi, rdi, r8 to r11 */
/* Which of them are a multicall's arguments, and what the ring in CS is for the kernel. */
#if BITS == 64
enum { MULTICALL_LIST = 5, MULTICALL_COUNT = 4, KERNEL_RING = 0 };
#else
enum { MULTICALL_LIST = 3, MULTICALL_COUNT = 1, KERNEL_RING = 1 };
#endif
extern void run_piece(const void *code);
extern void run_user(const struct iret_frame *frame, word number) __attribute__((noreturn));
extern char iret_landing[];

static struct iret_frame frame;

/* The frame from the stack that it has, below which a kernel's next trap of 32 bits is going to be pushed. */
static void go(word number)
{
    struct iret_frame *at = (struct iret_frame *)(scratch + 2 * PAGE) - 1;
    *at = frame;
    run_user(at, number);
}

static void load_registers(void)
{
    static const u32 msrs[] = {
        0xc0000080, 0xc0000081, 0xc0000082, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0x10, 0x1b, 0x174, 0x277,
        0x400, 0xc0010015, 0x8b, 0x1a0, 0x140, 0x40000000, 0xc0011029,
    };
    for (unsigned i = 0; i < 10; i++)
        piece_registers[i] = below(2) ? (word)stray() : pointer();
    if (below(2)) /* a selector, a register, a port */
        piece_registers[0] = below(2) ? 0xe000 + below(64) : below(1 << 16);
    if (BITS == 64 && piece_registers[0] == 0xe023) /* 32-bit code: its stack is elsewhere, and its next trap the end */
        piece_registers[0] = 0xe033;
    if (below(2))
        piece_registers[1] = below(3) ? PICK(msrs) : 0xe000 + below(64);
    if (below(2))
        piece_registers[2] = below(1 << 16);
    piece_registers[4] = pointer();
    piece_registers[6] = frame_address(any_frame());
    piece_registers[7] = frame_address(refused_root());
    piece_registers[5] = pointer();
}

/* One or two pieces, then `tail`. */
static void write_code(const void *tail, unsigned size)
{
    u8 *at = code_page;
    for (word left = 1 + below(2); left; left--) {
        const struct piece *piece = &pieces[below(pieces_end - pieces)];
        memcpy(at, piece->from, piece->to - piece->from);
        at += piece->to - piece->from;
    }
    memcpy(at, tail, size);
}

void round_of_code(word round)
{
    static const u8 ret = 0xc3;
    write_code(&ret, 1);
    load_registers();
    totals.pieces++;
    run_piece(code_page);
    (void)round;
}

static void user_tables(void)
{
    if (BITS == 64)
        MUST(mmuext(NEW_USER_BASEPTR, mfn_of(user_root), 0));
}

static word some_flags(void)
{
    static const word flags[] = {0x202, 0x202, 2, 0x302, 0x3202, 0x10202, 0x20202, 0x4202, 0x40202, 0x602, 0x200202};
    return below(4) ? PICK(flags) : any();
}

static word some_selector(void)
{
    static const u16 selectors[] = {
        FLAT_USER_CS, FLAT_USER_CS, 0xe023, FLAT_USER_SS, FLAT_USER_SS, FLAT_KERNEL_CS & ~3, 0, 3, 7, 0xe008,
        0xe010, 0xe019, 0x10, 0x0b, 0x0f, 0xe000, 0xffff,
    };
    return below(4) ? PICK(selectors) : below(1 << 16);
}

static void some_frame(void)
{
    load_registers();
    frame = (struct iret_frame){.rax = any()};
#if BITS == 64
    frame.r11 = any(), frame.rcx = any(), frame.flags = below(2) ? 0 : any() & 0x1ff;
#endif
    frame.cs = below(3) ? FLAT_USER_CS : some_selector();
    frame.ss = below(3) ? FLAT_USER_SS : some_selector();
    frame.rflags = some_flags();
}

void round_of_user_code(word round)
{
#if BITS == 64
    static const u8 tail[] = {0x0f, 0x05, 0x0f, 0x0b}; /* syscall, ud2 */
#else
    static const u8 tail[] = {0xcd, 0x80, 0x0f, 0x0b};
#endif
    write_code(tail, sizeof tail);
    user_tables();
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS, entry_stack_top));
    some_frame();
    frame.cs |= 3;
    frame.rip = USER_PIECE + (one_in(16) ? below(PAGE) : 0);
    frame.rsp = one_in(8) ? pointer() : USER_STACK_TOP - 256;
    totals.excursions++;
    go(IRET);
    (void)round;
}

void round_of_irets(word round)
{
    some_frame();
    frame.cs = below(8) ? (frame.cs & ~3ul) | KERNEL_RING : frame.cs | KERNEL_RING;
    frame.rip = below(4) ? (word)iret_landing : (word)code_page + PAGE + below(PAGE);
    frame.rsp = (word)scratch + 2 * PAGE - 8 * below(3);
    user_tables();
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS, entry_stack_top));
    totals.irets++;
    static struct multicall_entry entries[2] = {{.op = XEN_VERSION}, {.op = IRET}};
    if (below(4))
        go(IRET);
    piece_registers[MULTICALL_COUNT] = 2;
    piece_registers[MULTICALL_LIST] = (word)entries;
    go(MULTICALL);
    (void)round;
}

static void update_descriptor(u64 address, u64 descriptor)
{
    hypercall(UPDATE_DESCRIPTOR, VALUE(address), VALUE(descriptor));
}

/* A page of descriptors as the GDT or the LDT, and selectors that lead there. */
void round_of_descriptors(word round)
{
    word page = habit_page(0), frames[1] = {pool_mfn[page]};
    u64 *at = (u64 *)(pool + page * PAGE);
    int local = below(2);
    for (unsigned i = 0; i < 16; i++)
        at[i] = below(3) ? 0x00cff3000000ffff | (u64)below(16) << 40 : below(2) ? 0x00affb000000ffff : 0;
    map((word)at, frame_address(pool_mfn[page]) | DATA_RO);
    if (local)
        mmuext(SET_LDT, (word)at, 1 + below(512));
    else
        hypercall(SET_GDT, frames, 1 + below(512));
    for (unsigned i = 0; i < 8; i++)
        update_descriptor(frame_address(pool_mfn[page]) + 8 * below(18), some_descriptor());
    static const u8 loads[] = {
        0x8e, 0xd8, 0x8e, 0xc1, 0x8e, 0xe2, 0x8e, 0xe8, /* ds, es, fs, gs */
        0x0f, 0x02, 0xc8, 0x0f, 0x00, 0xe1, 0xc3, /* lar, verr */
    };
    memcpy(code_page, loads, sizeof loads);
    for (unsigned i = 0; i < 3; i++)
        piece_registers[i] = below(18) << 3 | (local ? 4 : 0) | below(4);
    totals.pieces++;
    run_piece(code_page);
    some_frame();
    frame.cs = (below(18) << 3 | (local ? 4 : 0)) | (below(2) ? 3 : KERNEL_RING);
    frame.ss = below(18) << 3 | (local ? 4 : 0) | 3;
    const int to_user = (frame.cs & 3) == 3;
    frame.rip = to_user ? USER_PIECE : (word)iret_landing;
    frame.rsp = to_user ? USER_STACK_TOP - 256 : (word)scratch + 2 * PAGE;
    user_tables();
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS, entry_stack_top));
    totals.irets++;
    go(IRET);
    (void)round;
}
