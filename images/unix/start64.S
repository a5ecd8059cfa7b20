/* The way in, and the jump to the kernel. No notes: the string below is all that Xen is told. */
    .section __xen_guest
    .asciz "GUEST_OS=pvstub-unix,GUEST_VER=1,XEN_VER=xen-3.0,LOADER=generic,VIRT_BASE=0x40000000"

    .section .dboot.start, "ax"
    .globl _start
_start:
    pushq $0
    popfq
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    xor %ebp, %ebp
    mov %rsi, %rdi
    call dboot_main

/* enter_kernel(handover, stack top, entry) */
    .globl enter_kernel
enter_kernel:
    mov %rsi, %rsp
    xor %ebp, %ebp
    push %rbp
    jmp *%rdx

    .section .note.GNU-stack, "", @progbits
