// What a 64-bit PV kernel of a few instructions needs: Xen's notes, hypercalls and an end.
// Numbers are those of Xen's public headers (xen.h, sched.h, elfnote.h, arch-x86/xen-x86_64.h).

.set VIRT_BASE, 0xffffffff80000000

.macro note type, value:vararg
        .long 4, 2f - 1f, \type
        .asciz "Xen"
1:      \value
2:      .balign 4
.endm

.section .note.Xen, "a", @note
        note 5, .asciz "xen-3.0"        // XEN_ELFNOTE_XEN_VERSION
        note 6, .asciz "benchmark"      // XEN_ELFNOTE_GUEST_OS
        note 8, .asciz "generic"        // XEN_ELFNOTE_LOADER
        note 3, .quad VIRT_BASE         // XEN_ELFNOTE_VIRT_BASE
        note 4, .quad VIRT_BASE         // XEN_ELFNOTE_PADDR_OFFSET: physical addresses in the file are virtual ones
        note 1, .quad _start            // XEN_ELFNOTE_ENTRY

// Arguments in rdi, rsi, rdx, r10, r8; rcx and r11 are lost.
.macro hypercall number
        mov $\number, %eax
        syscall
.endm

.set HYPERVISOR_set_trap_table, 0
.set HYPERVISOR_xen_version, 17
.set HYPERVISOR_iret, 23
.set HYPERVISOR_mmuext_op, 26
.set HYPERVISOR_sched_op, 29

.macro poweroff
        mov $2, %edi                    // SCHEDOP_shutdown
        lea SHUTDOWN_poweroff(%rip), %rsi
        hypercall HYPERVISOR_sched_op
        ud2
.endm

.data
SHUTDOWN_poweroff: .long 0

.text
.globl _start
_start:
