/* The way in: from Xen's domain builder, from traps, events and system calls; and the way to user code and back.
   32/entry.S is its twin. */
#define NOTE(type, content...) .balign 4; .long 4, 2f - 1f, type; .asciz "Xen"; 1: content; 2: .balign 4

    .section .note.Xen, "a", @note
    NOTE(6, .asciz "pvstub test")
    NOTE(5, .asciz "xen-3.0")
    NOTE(8, .asciz "generic")
    NOTE(3, .quad 0xffffffff80000000)
    NOTE(1, .quad _start)

    .section .text.start, "ax"
    .globl _start
_start:
    mov %rsp, boot_stack_top(%rip)
    lea stack_top(%rip), %rsp
    xor %ebp, %ebp
    mov %rsi, %rdi
    call kit_start
    ud2

/* One way in for each vector. Xen leaves rcx, r11, the code if there is one, then what iretq takes.
   Until the flags are stored, nothing here may change them. */
    .text
    .balign 64
    .globl trap_entries
trap_entries:
    .set vector, 0
    .rept 256
    .balign 64
    mov %rcx, live_rcx(%rip)
    mov %r11, live_r11(%rip)
    mov (%rsp), %rcx
    mov 8(%rsp), %r11
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
    lea 16(%rsp), %rsp
    .else
    lea 8(%rsp), %rsp
    movq $0, (%rsp)
    .endif
    pushq $vector
    jmp enter
    .set vector, vector + 1
    .endr

enter:
    push %rcx
    push %r11
    push %rdi
    push %rsi
    push %rdx
    push %rax
    push %r8
    push %r9
    push %r10
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    pushq live_r11(%rip)
    pushq live_rcx(%rip)
    mov %ds, %eax
    push %rax
    mov %ss, %eax
    push %rax
    mov %cs, %eax
    push %rax
    pushfq
    cld
    mov %rsp, %rdi
    mov %rsp, %rbx
    and $-16, %rsp
    call kit_trap
    mov %rbx, %rsp
    add $48, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rdx
    pop %rsi
    pop %rdi
    pop %r11
    pop %rcx
    add $16, %rsp
    push $0             /* what iret takes: rax, r11, rcx, flags, rip, cs, rflags, rsp, ss */
    push %rcx
    push %r11
    push %rax
    mov $23, %eax
    syscall

/* Events and system calls are told apart from exceptions by vectors past 255 (kit.h). */
    .macro other name, number
    .globl \name
\name:
    mov %rcx, live_rcx(%rip)
    mov %r11, live_r11(%rip)
    mov (%rsp), %rcx
    mov 8(%rsp), %r11
    lea 8(%rsp), %rsp
    movq $0, (%rsp)
    pushq $\number
    jmp enter
    .endm
    other event_callback, 256
    other syscall_callback, 257
    other sysenter_callback, 258
    other syscall32_callback, 259

/* The failsafe callback's frame has ds, es, fs and gs between r11 and rip. */
    .globl failsafe_callback
failsafe_callback:
    mov %rcx, live_rcx(%rip)
    mov %r11, live_r11(%rip)
    mov 16(%rsp), %rcx
    mov %rcx, failsafe_selectors(%rip)
    mov 24(%rsp), %rcx
    mov %rcx, failsafe_selectors+8(%rip)
    mov 32(%rsp), %rcx
    mov %rcx, failsafe_selectors+16(%rip)
    mov 40(%rsp), %rcx
    mov %rcx, failsafe_selectors+24(%rip)
    mov (%rsp), %rcx
    mov 8(%rsp), %r11
    lea 40(%rsp), %rsp
    movq $0, (%rsp)
    pushq $260
    jmp enter

/* word call_and_catch(void (*function)(word), word argument): 0, or 1 if leave_caught() was called within it. */
    .globl call_and_catch
call_and_catch:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    pushq caught_rsp(%rip)
    mov %rsp, caught_rsp(%rip)
    mov %rdi, %rax
    mov %rsi, %rdi
    call *%rax
    xor %eax, %eax
1:  popq caught_rsp(%rip)
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .globl leave_caught
leave_caught:
    mov caught_rsp(%rip), %rsp
    mov $1, %eax
    cld
    jmp 1b

/* void user_iret(word rip, word argument, word cs, word rflags): to user code; returns by leave_caught. */
    .globl user_iret
user_iret:
    push $0xe02b
    push $0x600000
    push %rcx
    push %rdx
    push %rdi
    push $0
    push $0
    push $0
    push $0
    mov %rsi, %rdi
    mov $23, %eax
    syscall
    ud2

    .section .user, "ax"
    .globl user_return
user_return:            /* user code that only makes a system call, with its argument */
    syscall
    ud2

    .bss
    .balign 4096
    .skip 16384
    .globl stack_top
stack_top:
    .skip 4096
    .globl entry_stack_top
entry_stack_top:        /* where traps from user code are taken */
    .balign 8
    .globl boot_stack_top, failsafe_selectors, caught_rsp
boot_stack_top:     .skip 8
failsafe_selectors: .skip 32
caught_rsp:         .skip 8
live_rcx:           .skip 8
live_r11:           .skip 8
    .section .note.GNU-stack, "", @progbits
