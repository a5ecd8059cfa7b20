/* The way in: from Xen's domain builder, from traps, events and system calls. */
    .cfi_sections .debug_frame
#define NOTE(type, content...) .balign 4; .long 4, 2f - 1f, type; .asciz "Xen"; 1: content; 2: .balign 4

    .section .note.Xen, "a", @note
    NOTE(6, .asciz "pvstub test")
    NOTE(5, .asciz "xen-3.0")
    NOTE(8, .asciz "generic")
    NOTE(3, .quad 0xffffffff80000000)
    NOTE(1, .quad _start)

    .section .text.start, "ax"
    .globl _start
    .type _start, @function
_start:
    .cfi_startproc
    .cfi_undefined rip
    lea stack_top(%rip), %rsp
    xor %ebp, %ebp
    mov %rsi, %rdi
    call start
    ud2
    .cfi_endproc
    .size _start, . - _start

/* Xen leaves rcx, r11, the error code if there is one, and what iretq takes. */
.macro entry name, vector, has_code, handler
    .globl \name
    .type \name, @function
\name:
    .cfi_startproc
    .cfi_undefined rip
    mov (%rsp), %rcx
    mov 8(%rsp), %r11
    add $16, %rsp
    .if \has_code == 0
    push $0
    .endif
    push $\vector
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    cld
    call \handler
    jmp leave
    .cfi_endproc
    .size \name, . - \name
.endm

    .text
    entry trap_1, 1, 0, on_trap
    entry trap_3, 3, 0, on_trap
    entry trap_13, 13, 1, on_trap
    entry trap_14, 14, 1, on_trap
    entry trap_128, 128, 0, on_trap
    entry event_callback, 0, 0, on_event
    entry failsafe_callback, 255, 0, on_failsafe

    .globl leave, at_leave_iret
    .type leave, @function
leave:
    .cfi_startproc
    .cfi_undefined rip
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    add $16, %rsp
    push $0             /* what iret takes: rax, r11, rcx, flags, rip, cs, rflags, rsp, ss */
    push %rcx
    push %r11
    push %rax
    mov $23, %eax
at_leave_iret:
    syscall
    .cfi_endproc
    .size leave, . - leave

/* u64 do_user(u64 argument): to user code, and back with its system call's argument. */
    .globl do_user, at_user_iret
    .type do_user, @function
do_user:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, kernel_rsp(%rip)
    push $0xe02b
    push $user_stack_top
    push $0x202
    push $0xe033
    push $user_code
    push $0
    push $0
    push $0
    push $0
    mov $23, %eax
at_user_iret:
    syscall

    .globl syscall_callback
syscall_callback:
    mov %rdi, %rax
    mov kernel_rsp(%rip), %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .size do_user, . - do_user

    .globl user_code, at_user_syscall
    .type user_code, @function
user_code:
    inc %rdi
    inc %rdi
at_user_syscall:
    syscall
    ud2
    .size user_code, . - user_code

    .bss
    .balign 4096
    .skip 16384
stack_top:
    .skip 4096
    .globl user_stack_top
user_stack_top:
kernel_rsp:
    .skip 8
    .section .note.GNU-stack, "", @progbits
