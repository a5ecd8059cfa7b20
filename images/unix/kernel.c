/* The kernel proper, as much of it as shows that it was started rightly. It runs at the top of the address space, on
 * the tables that the start-up code made, on a stack of its own. */
#include "common.c"

static u64 stack[512] __attribute__((aligned(16)));
void *const kernel_stack_top = stack + 512;
static const char banner[] = "pvstub unix Release 1 %d-bit\n";
static word runs = 1; /* .data, to be written to */

static void show_properties(void)
{
    for (unsigned i = 0; i < boot->n_properties; i++)
        print("property %s=%s\n", boot->properties[i].name, boot->properties[i].value);
}

static void show_ramdisk(void)
{
    const struct start_info *si = boot->start_info;
    if (si->mod_len)
        print("ramdisk_start=0x%x ramdisk_end=0x%x first word 0x%x\n", si->mod_start, si->mod_start + si->mod_len,
              *(word *)si->mod_start & 0xffffffff);
}

/* Takes the data out of the window, as the kernel's table code changes entries: by a locked cmpxchg on the table itself,
 * which is mapped read-only. Xen emulates the store, once it was asked to. */
static void close_aliases(void)
{
    if (hypercall(HC_vm_assist, 0, WRITABLE_PAGETABLES, 0, 0)) {
        print("kernel panic: no writable page tables\n");
        end(3 /* SHUTDOWN_crash */);
    }
    const word pages = (word)(data_end - data_start) / PAGE;
    for (word i = 0; i < pages; i++)
        for (u64 old = boot->aliases[i];;) {
            const u64 seen = __sync_val_compare_and_swap(&boot->aliases[i], old, 0);
            if (seen == old)
                break;
            old = seen;
        }
    print("data is in the window no longer, pages %d\n", pages);
}

void kernel_main(struct handover *handover)
{
    boot = handover;
    const word here = (word)&stack;
    print(banner, (word)BITS);
    print("kernel text at 0x%x, data at 0x%x, stack at 0x%x\n", (word)text_start, (word)data_start, here);
    if (same(property("prom_debug"), "true"))
        show_properties();
    show_ramdisk();
    close_aliases();
    const u32 *wallclock = (const u32 *)(SHARED_INFO_VA + WALLCLOCK);
    print("time of day %d\n", (word)wallclock[1]);
    runs++;
    print("%d failed probes, %d tables; syncing file systems... done\n", (word)boot->probes_failed, (word)boot->tables);
    end(0);
}
