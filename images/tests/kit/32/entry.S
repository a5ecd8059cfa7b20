/* The way in: from Xen's domain builder, from traps, events and system calls; and the way to user code and back.
   64/entry.S is its twin. C functions take their arguments in eax, edx, ecx (-mregparm=3). */
#define NOTE(type, content...) .balign 4; .long 4, 2f - 1f, type; .asciz "Xen"; 1: content; 2: .balign 4

    .section .note.Xen, "a", @note
    NOTE(6, .asciz "pvstub test")
    NOTE(5, .asciz "xen-3.0")
    NOTE(8, .asciz "generic")
    NOTE(9, .asciz "yes")
    NOTE(3, .long 0xc0000000)
    NOTE(1, .long _start)

    .section .text.start, "ax"
    .globl _start
_start:
    mov %esp, boot_stack_top
    mov $stack_top, %esp
    xor %ebp, %ebp
    mov %esi, %eax
    call kit_start
    ud2

/* Offsets in struct frame (arch.h). */
    .set LIVE_DS, 12
    .set LIVE_ES, 16
    .set PUSHED_TO, 20
    .set RDI, 24
    .set RSI, 28
    .set RBP, 32
    .set RBX, 40
    .set RDX, 44
    .set RCX, 48
    .set RAX, 52
    .set CODE, 60
    .set RIP, 64
    .set CS, 68
    .set RFLAGS, 72
    .set RSP, 76
    .set SS, 80
    .set FRAME, 84

/* One way in for each vector. Xen leaves the code if there is one, then what iret takes, of which esp and ss only where
   it came from user code. Until the flags are stored, nothing here may change them, nor use ds. */
    .text
    .balign 64
    .globl trap_entries
trap_entries:
    .set vector, 0
    .rept 256
    .balign 64
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
    push $0
    .endif
    push $vector
    jmp enter
    .set vector, vector + 1
    .endr

enter:
    pushal
    push $0
    mov %es, %eax
    push %eax
    mov %ds, %eax
    push %eax
    mov %ss, %eax
    push %eax
    mov %cs, %eax
    push %eax
    pushfl
    cld
    mov %ss, %eax
    mov %eax, %ds
    mov %eax, %es
    lea RIP(%esp), %eax
    mov %eax, PUSHED_TO(%esp)
    testb $2, CS(%esp)
    jnz 1f
    sub $8, %esp        /* the kernel's: make room for what Xen has left out */
    mov %esp, %edi
    lea 8(%esp), %esi
    mov $RSP / 4, %ecx
    rep movsl
    lea FRAME(%esp), %eax
    mov %eax, RSP(%esp)
    mov %ss, %eax
    mov %eax, SS(%esp)
1:  mov %esp, %ebx
    mov %esp, %eax
    and $-16, %esp
    call kit_trap
    mov %ebx, %esp
    mov LIVE_ES(%esp), %eax
    mov %eax, %es
    testb $2, CS(%esp)
    jz 2f
    mov RAX(%esp), %eax /* what iret takes: eax, eip, cs, eflags, and for user code esp, ss */
    mov %eax, CODE(%esp)
    mov RCX(%esp), %ecx
    mov RDX(%esp), %edx
    mov RBX(%esp), %ebx
    mov RBP(%esp), %ebp
    mov RSI(%esp), %esi
    mov RDI(%esp), %edi
    mov LIVE_DS(%esp), %eax
    mov %eax, %ds
    lea CODE(%esp), %esp
    mov $23, %eax
    int $0x82
2:  mov RSP(%esp), %ebp /* the kernel goes on with the stack that the frame names: iret's words go right below it */
    mov RAX(%esp), %eax
    mov RIP(%esp), %ecx
    mov CS(%esp), %edx
    mov RFLAGS(%esp), %esi
    mov RBP(%esp), %edi
    mov %eax, %ss:-16(%ebp)
    mov %ecx, %ss:-12(%ebp)
    mov %edx, %ss:-8(%ebp)
    mov %esi, %ss:-4(%ebp)
    mov %edi, %ss:-20(%ebp)
    mov RCX(%esp), %ecx
    mov RDX(%esp), %edx
    mov RBX(%esp), %ebx
    mov RSI(%esp), %esi
    mov RDI(%esp), %edi
    mov LIVE_DS(%esp), %eax
    mov %eax, %ds
    lea -20(%ebp), %esp
    pop %ebp
    mov $23, %eax
    int $0x82

/* Events and the callbacks for system calls are told apart from exceptions by vectors past 255 (kit.h). */
    .macro other name, number
    .globl \name
\name:
    push $0
    push $\number
    jmp enter
    .endm
    other event_callback, 256
    other syscall_callback, 257
    other sysenter_callback, 258
    other syscall32_callback, 259

/* The failsafe callback's frame has ds, es, fs and gs before eip; ds may be one that cannot be used. */
    .globl failsafe_callback
failsafe_callback:
    popl %ss:failsafe_selectors
    popl %ss:failsafe_selectors+4
    popl %ss:failsafe_selectors+8
    popl %ss:failsafe_selectors+12
    push $0
    push $260
    jmp enter

/* word call_and_catch(void (*function)(word), word argument): 0, or 1 if leave_caught() was called within it. */
    .globl call_and_catch
call_and_catch:
    push %ebx
    push %ebp
    push %esi
    push %edi
    pushl caught_rsp
    mov %esp, caught_rsp
    mov %eax, %ecx
    mov %edx, %eax
    call *%ecx
    xor %eax, %eax
1:  popl caught_rsp
    pop %edi
    pop %esi
    pop %ebp
    pop %ebx
    ret
    .globl leave_caught
leave_caught:
    mov caught_rsp, %esp
    mov $1, %eax
    cld
    jmp 1b

/* void user_iret(word rip, word argument, word cs, word rflags): to user code; returns by leave_caught. */
    .globl user_iret
user_iret:
    mov 4(%esp), %ebx
    mov $0xe033, %esi
    mov %esi, %ds
    mov %esi, %es
    push %esi
    push $0x600000
    push %ebx
    push %ecx
    push %eax
    push %edx           /* eax, too, has the argument */
    mov %edx, %edi
    mov $23, %eax
    int $0x82
    ud2

    .section .user, "ax"
    .globl user_return
user_return:            /* user code that only makes a system call, with its argument */
    int $0x80
    ud2

    .bss
    .balign 4096
    .skip 16384
    .globl stack_top
stack_top:
    .skip 4096
    .globl entry_stack_top
entry_stack_top:        /* where traps from user code are taken */
    .balign 4
    .globl boot_stack_top, failsafe_selectors, caught_rsp
boot_stack_top:     .skip 4
failsafe_selectors: .skip 16
caught_rsp:         .skip 4
    .section .note.GNU-stack, "", @progbits
