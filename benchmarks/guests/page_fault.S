// COUNT page faults, each bounced to the kernel's handler, which returns by the iret hypercall to the same instruction.
// With USER the instruction is user code: then the switches of page table and GS base are in the price.
#include "pv.h"

.set KERNEL_CS, 0xe030                  // FLAT_KERNEL_CS64; iret goes to user mode when its frame's cs has RPL 3
.set USER_CS, 0xe033
.set FLAT_SS, 0xe02b
.set START_INFO_pt_base, 88
.set START_INFO_mfn_list, 104

        mov $COUNT, %ebx
#ifdef USER
        mov START_INFO_mfn_list(%rsi), %rax
        mov START_INFO_pt_base(%rsi), %rcx
        sub $VIRT_BASE, %rcx
        shr $12, %rcx
        mov (%rax,%rcx,8), %rax
        mov %rax, user_root(%rip)       // the kernel's own table serves user code as well
        lea new_user_baseptr(%rip), %rdi
        mov $1, %esi
        xor %edx, %edx
        mov $0x7ff0, %r10d              // DOMID_SELF
        hypercall HYPERVISOR_mmuext_op
        test %eax, %eax
        jnz fail
#endif
        lea traps(%rip), %rdi
        hypercall HYPERVISOR_set_trap_table
        test %eax, %eax
        jnz fail
        xor %edi, %edi
#ifdef USER
        mov %rsp, %rax
        push $FLAT_SS
        push %rax
        push $0x202
        push $USER_CS
        lea 0f(%rip), %rax
        push %rax
        push $0                         // flags
        push $0                         // rcx
        push $0                         // r11
        push $0                         // rax
        hypercall HYPERVISOR_iret
#endif
0:      mov (%rdi), %al                 // faults for ever; the handler counts
fail:   ud2

// The frame: rcx, r11, error code, rip, cs, rflags, rsp, ss. What iret wants: rax, r11, rcx, flags, rip, ...
page_fault:
        dec %ebx
        jz 1f
        pop %rcx
        pop %r11
        movq $0, (%rsp)                 // the error code's place becomes the flags
        push %rcx
        push %r11
        push %rax
        hypercall HYPERVISOR_iret
1:      poweroff

.data
.balign 8
traps:  .byte 14, 0                     // struct trap_info
        .word USER_CS
        .long 0
        .quad page_fault
        .quad 0, 0
new_user_baseptr:
        .long 15, 0                     // struct mmuext_op: MMUEXT_NEW_USER_BASEPTR
user_root:
        .quad 0, 0
