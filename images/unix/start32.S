/* The way in, and the jump to the kernel, in 32 bits; start64.S is its twin. Arguments are in eax, edx, ecx. */
    .section __xen_guest
    .asciz "GUEST_OS=pvstub-unix,GUEST_VER=1,XEN_VER=xen-3.0,LOADER=generic,VIRT_BASE=0x40000000,PAE=yes"

    .section .dboot.start, "ax"
    .globl _start
_start:
    pushl $0
    popfl
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    xor %ebp, %ebp
    mov %esi, %eax
    call dboot_main

/* enter_kernel(handover, stack top, entry) */
    .globl enter_kernel
enter_kernel:
    mov %edx, %esp
    xor %ebp, %ebp
    push %ebp
    jmp *%ecx

    .section .note.GNU-stack, "", @progbits
