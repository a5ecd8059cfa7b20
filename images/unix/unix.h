/* What the start-up code and the kernel share: Xen's interface as far as they use it, and what is handed over. */
#pragma once
#ifdef __x86_64__
#include "arch64.h"
#else
#include "arch32.h"
#endif

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define PAGE 4096ul
enum { PRESENT = 1, WRITABLE = 2, USER = 4, ACCESSED = 32, DIRTY = 64 };
#define FOREIGN 0x800ull /* a software bit: the frame has no PFN of ours, so nothing may look for one */
#define FRAME 0x000ffffffffff000ull

enum { HC_mmu_update = 1, HC_xen_version = 17, HC_vm_assist = 21, HC_mmuext_op = 26, HC_sched_op = 29,
       HC_event_channel_op = 32 };
enum { PIN_TOP_TABLE = LEVELS - 1, UNPIN_TABLE = 4, NEW_BASEPTR = 5 };
enum { XENVER_platform_parameters = 5, EVTCHNOP_send = 4, SCHEDOP_yield = 0, SCHEDOP_shutdown = 2 };
enum { EINVAL = 22, DOMID_SELF = 0x7ff0, WRITABLE_PAGETABLES = 2 };

struct start_info {
    char magic[32];
    word nr_pages, shared_info;
    u32 flags;
    word store_mfn;
    u32 store_evtchn;
    word console_mfn;
    u32 console_evtchn;
    word pt_base, nr_pt_frames, mfn_list, mod_start, mod_len;
    char cmd_line[1024];
};

struct console_ring {
    char in[1024], out[2048];
    u32 in_consumer, in_producer, out_consumer, out_producer;
};

struct mmu_update {
    u64 at, value;
};

struct mmuext_op {
    u32 command;
    word mfn, argument;
};

/* A boot property: "name=value" of the command line. */
struct property {
    char name[32], value[96];
};
enum { MOST_PROPERTIES = 16 };

/* From the start-up code to the kernel. */
struct handover {
    struct start_info *start_info;
    struct console_ring *ring;
    struct property properties[MOST_PROPERTIES];
    unsigned n_properties, probes_failed, tables;
    u64 *aliases; /* the entries by which the window maps the kernel's data, too */
};

/* The linker script's. */
extern char text_start[], text_end[], text_pa[], data_start[], data_end[], data_pa[], dboot_start[];
void kernel_main(struct handover *handover) __attribute__((noreturn));
void dboot_main(struct start_info *start_info) __attribute__((noreturn));
void enter_kernel(struct handover *handover, void *stack_top, void (*entry)(struct handover *)) __attribute__((noreturn));
