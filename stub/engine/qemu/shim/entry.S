/* The ways from the guest into the shim and back. The law of the count: between the two rdtsc (`leave` and `enter`) lie
 * so many instructions of the shim, whatever came, that the guest's own are the difference less a constant (shim.c). */
#include "../mailbox.h"

#define WORD(n) words + 8 * (n)(%rip)
#define RAX 0
#define RCX 1
#define RDX 2
#define RBX 3
#define RSP 4
#define RBP 5
#define RSI 6
#define RDI 7
#define RIP 16
#define RFLAGS 17
#define CS 18
#define SS 19
#define RETIRED 36
#define TIME_SKEW 37
#define TSC_AUX 44
#define RDTSCS 46
#define FLAT_CS 0xe033
#define FLAT_RING1_CS 0xe019
#define SAVED_RAX (MAIL_SCRATCH)
#define SAVED_RDX (MAIL_SCRATCH + 1)

/* A 32-bit field of the boot code that is to hold a machine address: now it holds how far that is from the field; the
 * engine adds the field's own (window.py). */
#define MACHINE(what) 99: .long what - 99b; .pushsection .places, "a"; .long 99b - .; .popsection

    .section .header, "a"
    .globl image
image:
    .long boot - ., places_end - .
    .section .places, "a"
places:

    .section .boot, "ax"
/* The CPU comes here from the firmware (process.py), in protected mode. */
    .code32
boot:
    mov $SHIM_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    .byte 0x0f, 0x01, 0x15 /* lgdt */
    MACHINE(boot_gdt)
    mov $0x668, %eax
    mov %eax, %cr4
    .byte 0xb8 /* mov eax */
    MACHINE(image - 4096 * (PAGE_CODE - PAGE_ROOT))
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    mov $0x901, %eax
    xor %edx, %edx
    wrmsr
    mov $0x80010033, %eax
    mov %eax, %cr0
    .byte 0xea
    MACHINE(2f)
    .word SHIM_CODE
    .code64
2:  movabs $3f, %rax
    jmp *%rax
3:  lea stack_end(%rip), %rsp
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %ebp, %ebp
    call start
    pushq $XEN_CODE
    lea 4f(%rip), %rax
    push %rax
    lretq
4:  lea under_monitor(%rip), %rdi
    mov %rsp, %rsi
    call make_machine
    test %rax, %rax
    jz under_monitor
/* The monitor (monitor.c): back here is a cpuid, and the machine goes on with a #GP at it. All registers but rax are
 * the guest's. */
monitor:
    vmrun %rax
    movl $0x80000b0d, control + 0xa8(%rip)
    movl $0, control + 0xac(%rip)
    jmp monitor
under_monitor:
    call wait_first
    jmp enter

    .p2align 3
boot_gdt:
    .word 63
    MACHINE(own_gdt)
    .data
    .p2align 3
    .globl own_gdt
own_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff, 0, 0, 0, 0

    .text
/* One stub for each vector, 16 bytes apart, of three instructions. */
    .macro some_stubs count
    .rept \count
    .p2align 4
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
    nop
    .else
    push $0
    .endif
    push $vector
    jmp leave
    .set vector, vector + 1
    .endr
    .endm
    .set vector, 0
    .p2align 4
    .globl stubs, more_stubs
stubs:
    some_stubs NEAR_GATES
    .section .text.unlikely, "ax"
    .p2align 4
more_stubs:
    some_stubs (256-NEAR_GATES)
    .text

/* The stack has the vector, the error code, RIP, CS, RFLAGS, RSP and SS. */
    .p2align 4
leave:
    mov %rax, WORD(SAVED_RAX)
    mov %rdx, WORD(SAVED_RDX)
    rdtsc
    testb $3, 24(%rsp)
    jz inside
    shl $32, %rdx
    or %rdx, %rax
    mov %rax, WORD(MAIL_TSC_IN)
    mov WORD(SAVED_RAX), %rdx
    mov %rdx, WORD(RAX)
    mov WORD(SAVED_RDX), %rdx
    mov %rdx, WORD(RDX)
    cmpq $13, (%rsp)
    jne slow
    cmpq $FLAT_CS, 24(%rsp)
    je 1f
    cmpq $FLAT_RING1_CS, 24(%rsp)
    jne slow
1:  cmpq $0, 8(%rsp)
    jne slow
    cmpq $0, WORD(MAIL_SCALE)
    jne slow
    testb $1, 33(%rsp) /* TF */
    jnz slow
    mov 16(%rsp), %rdx
peek:
    cmpw $0x310f, (%rdx)
    je read_time
    cmpw $0x010f, (%rdx)
    jne slow
peek_on:
    cmpb $0xf9, 2(%rdx)
    je read_time_and_aux
slow:
    mov %rdi, WORD(RDI)
    mov %rsi, WORD(RSI)
    pop %rdi
    pop %rsi
    pop %rax
    mov %rax, WORD(RIP)
    pop %rax
    mov %rax, WORD(CS)
    pop %rax
    mov %rax, WORD(RFLAGS)
    pop %rax
    mov %rax, WORD(RSP)
    pop %rax
    mov %rax, WORD(SS)
save:
    mov %rcx, WORD(RCX)
    mov %rbx, WORD(RBX)
    mov %rbp, WORD(RBP)
    mov %r8, WORD(8)
    mov %r9, WORD(9)
    mov %r10, WORD(10)
    mov %r11, WORD(11)
    mov %r12, WORD(12)
    mov %r13, WORD(13)
    mov %r14, WORD(14)
    mov %r15, WORD(15)
    lea stack_end(%rip), %rsp
    cld
    call came
    jmp enter

    .p2align 4
    .globl syscall_entry
syscall_entry:
    mov %rax, WORD(SAVED_RAX)
    mov %rdx, WORD(SAVED_RDX)
    rdtsc
    mov %rdi, WORD(RDI)
    mov $VECTOR_SYSCALL, %edi
    jmp 1f
    .p2align 4
    .globl syscall32_entry
syscall32_entry:
    mov %rax, WORD(SAVED_RAX)
    mov %rdx, WORD(SAVED_RDX)
    rdtsc
    mov %rdi, WORD(RDI)
    mov $VECTOR_SYSCALL32, %edi
1:  shl $32, %rdx
    or %rdx, %rax
    mov %rax, WORD(MAIL_TSC_IN)
    mov WORD(SAVED_RAX), %rax
    mov %rax, WORD(RAX)
    mov WORD(SAVED_RDX), %rax
    mov %rax, WORD(RDX)
    mov %rsi, WORD(RSI)
    mov %rsp, WORD(RSP)
    mov %rcx, WORD(RIP)
    mov %r11, WORD(RFLAGS)
    xor %esi, %esi
    jmp save

/* rdtsc and rdtscp in flat code, without more ado: RETIRED + TIME_SKEW, and the guest goes on behind it. */
    .p2align 4
read_time_and_aux:
    sub WORD(MAIL_RDTSCP_COUNTED), %rax
    mov WORD(TSC_AUX), %rcx
    incq 16(%rsp)
read_time:
    sub WORD(MAIL_TSC_OUT), %rax
    sub $SHIM_COUNT, %rax
    add WORD(RETIRED), %rax
    mov %rax, %rdx
    inc %rdx
    mov %rdx, WORD(RETIRED)
    incq WORD(RDTSCS)
    add WORD(TIME_SKEW), %rax
    mov %rax, %rdx
    shr $32, %rdx
    mov %rdx, WORD(SAVED_RDX)
    mov %eax, %eax
    mov %rax, WORD(SAVED_RAX)
    add $16, %rsp
    addq $2, (%rsp)
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mov %rax, WORD(MAIL_TSC_OUT)
    mov WORD(SAVED_RAX), %rax
    mov WORD(SAVED_RDX), %rdx
    jmp into

/* Into the guest: its registers from the words, the timer armed if it has to be. */
    .p2align 4
enter:
    pushq WORD(SS)
    pushq WORD(RSP)
    mov WORD(RFLAGS), %rax
    or WORD(MAIL_FLAGS), %rax
    push %rax
    pushq WORD(CS)
    pushq WORD(RIP)
    mov WORD(RCX), %rcx
    mov WORD(RBX), %rbx
    mov WORD(RBP), %rbp
    mov WORD(RSI), %rsi
    mov WORD(RDI), %rdi
    mov WORD(8), %r8
    mov WORD(9), %r9
    mov WORD(10), %r10
    mov WORD(11), %r11
    mov WORD(12), %r12
    mov WORD(13), %r13
    mov WORD(14), %r14
    mov WORD(15), %r15
    mov arm(%rip), %eax
    test %eax, %eax
    jz 1f
    mov %eax, apic + 0x380(%rip)
1:  rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mov %rax, WORD(MAIL_TSC_OUT)
    mov WORD(RAX), %rax
    mov WORD(RDX), %rdx
    jmp into
    .globl into
into:
    iretq

/* What comes while the shim runs: a fault where one was to be expected, or on the way into the guest; nothing else
 * should. */
    .p2align 4
inside:
    cmpq $1, (%rsp)
    je 6f
    lea into(%rip), %rax
    cmp 16(%rsp), %rax
    je 5f
    lea expected(%rip), %rdx
1:  mov (%rdx), %rax
    test %rax, %rax
    jz 3f
    cmp 16(%rsp), %rax
    je 2f
    add $16, %rdx
    jmp 1b
2:  mov 8(%rdx), %rax
    mov %rax, 16(%rsp)
    mov WORD(SAVED_RAX), %rax
    mov WORD(SAVED_RDX), %rdx
    add $16, %rsp
    iretq
3:  mov $VECTOR_BROKEN, %edi
    jmp 7f
/* A watched access by an instruction that was stepped: its #DB comes behind that of the step. DR6 keeps it. */
6:  addq $NESTED_COUNT, nested(%rip)
    mov WORD(SAVED_RAX), %rax
    mov WORD(SAVED_RDX), %rdx
    add $16, %rsp
    iretq
5:  mov $VECTOR_ENTRY, %edi
7:  add (%rsp), %rdi
    mov 8(%rsp), %rsi
    lea stack_end(%rip), %rsp
    cld
    call came
    jmp enter

    .data
    .p2align 3
/* Where the shim may fault, and where it then goes on. */
expected:
    .quad peek, slow
    .quad peek_on, slow
    .quad load_ds, null_ds
    .quad load_es, null_es
    .quad load_fs, null_fs
    .quad load_gs, null_gs
    .quad copy_code, copy_end
    .quad clear_tf, clear_end
    .quad 0

    .section .note.GNU-stack, "", @progbits
