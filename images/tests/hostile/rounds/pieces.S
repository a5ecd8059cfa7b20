/* Instructions that a kernel in ring 3 has no business to run, and some that it has, but with any registers. */
#ifdef __x86_64__
#define WORD .quad
#else
#define WORD .long
#endif
    .macro piece text
    .pushsection .rodata
    WORD 8f, 9f
    .popsection
8:  \text
9:
    .endm

    .section .rodata
    .balign 8
    .globl pieces
pieces:
    .text
#ifdef __x86_64__
    piece "mov %cr0, %rax"
    piece "mov %rax, %cr0"
    piece "mov %cr2, %rdx"
    piece "mov %rdi, %cr2"
    piece "mov %cr3, %rcx"
    piece "mov %r9, %cr3" /* a root that is none, or a good one */
    piece "mov %cr4, %rbx"
    piece "mov %rax, %cr4"
    piece "mov %cr8, %rax"
    piece "mov %rax, %cr8"
    piece "mov %db0, %rax"
    piece "mov %rdi, %db1"
    piece "mov %db7, %rax"
    piece "mov %rcx, %db6"
    piece "mov %db4, %rax"
    piece "clts"
    piece "lmsw %ax"
    piece "smsw %rax"
    piece "smsw (%rdi)"
    piece "invlpg (%rdi)"
    piece "lgdt (%rdi)"
    piece "lidt (%rdi)"
    piece "sgdt (%rdi)"
    piece "sidt (%rdi)"
    piece "sldt %eax"
    piece "lldt %ax"
    piece "str %eax"
    piece "ltr %ax"
    piece "verr %ax"
    piece "verw %cx"
    piece "lar %ax, %ecx"
    piece "lsl %cx, %edx"
    piece "wbinvd"
    piece "invd"
    piece "cli"
    piece "sti"
    piece "rdmsr"
    piece "wrmsr"
    piece "rdmsr; wrmsr"
    piece "mov $0x40000000, %ecx; mov %r8, %rax; mov %rax, %rdx; shr $32, %rdx; wrmsr" /* a hypercall page */
    piece "mov $0x70, %edx; outb %al, %dx; inb $0x71, %al"
    piece "rdtsc"
    piece "rdtscp"
    piece "rdpmc"
    piece "cpuid"
    piece "ud2; .byte 0x78, 0x65, 0x6e; cpuid"
    piece "ud2; .byte 0x78, 0x65, 0x6e; nop"
    piece "ud2"
    piece ".byte 0x0f, 0xff"
    piece ".byte 0x0f, 0xb9, 0xc0"
    piece ".byte 0xf1"
    piece ".byte 0x06"
    piece ".byte 0xd6"
    piece ".byte 0x0f, 0x37"
    piece ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90"
    piece "int3"
    piece "int $3"
    piece "int $4"
    piece "int $1"
    piece "int $2"
    piece "int $8"
    piece "int $14"
    piece "int $0x20"
    piece "int $0x80"
    piece "int $0x82"
    piece "int $0xff"
    piece "inb %dx, %al"
    piece "inw %dx, %ax"
    piece "inl %dx, %eax"
    piece "outb %al, %dx"
    piece "outw %ax, %dx"
    piece "outl %eax, %dx"
    piece "inb $0x61, %al"
    piece "outb %al, $0x80"
    piece "mov $0xcf8, %edx; outl %eax, %dx; mov $0xcfc, %edx; inl %dx, %eax"
    piece "mov $2, %ecx; rep insb"
    piece "mov $2, %ecx; rep outsl"
    piece "insw"
    piece "outsb"
    piece "push %rax; popfq"
    piece "push %rcx; popfq; pushfq; pop %rax"
    piece "pushfw; popw %ax"
    piece "mov %ax, %ds"
    piece "mov %cx, %es"
    piece "mov %dx, %fs"
    piece "mov %ax, %gs"
    piece "mov %cx, %ss"
    piece "mov %ds, %eax; mov %es, %ecx; mov %fs, %edx"
    piece "push %rax; pop %fs"
    piece "push %fs; pop %rax; push %gs; pop %rax"
    piece "lss (%rdi), %eax"
    piece "lfs (%rdi), %eax"
    piece "lgs (%rsi), %ecx"
    piece "mov %fs:(%rax), %rcx"
    piece "mov %gs:0, %rcx"
    piece "mov %rax, %gs:(%rdi)"
    piece "swapgs"
    piece "rdfsbase %rax"
    piece "wrfsbase %rdi"
    piece "wrgsbase %rsi"
    piece "push %rax; lea 7f(%rip), %r11; push %r11; lretq; 7:"
    piece "mov %rsp, %r11; push %rcx; push %r11; push %rdx; push %rax; lea 7f(%rip), %r11; push %r11; iretq; 7:"
    piece "mov %rsp, %r11; push $0xe02b; push %r11; push %rdx; push $0xe033; lea 7f(%rip), %r11; push %r11; iretq; 7:"
    piece "ljmp *(%rdi)"
    piece "lcall *(%rdi)"
    piece "rex.w ljmp *(%rsi)"
    piece "sysenter"
    piece "sysexitl"
    piece "sysretq"
    piece "monitor"
    piece "mwait"
    piece "xgetbv"
    piece "xsetbv"
    piece "vmcall"
    piece "vmrun"
    piece "vmload"
    piece "stgi"
    piece "clac"
    piece "stac"
    piece "rdrand %rax"
    piece "fninit; fnstenv (%rdi)"
    piece "fxsave (%rdi)"
    piece "fxrstor (%rdi)"
    piece "ldmxcsr (%rdi)"
    piece "stmxcsr (%rsi)"
    piece "movaps (%rdi), %xmm0"
    piece "movups %xmm0, (%rdi)"
    piece "fldenv (%rsi); fwait"
    piece "clflush (%rdi)"
    piece "prefetchw (%rdi)"
    piece "xchg %rax, (%rdi)"
    piece "lock cmpxchg16b (%rdi)"
    piece "lock addl %eax, (%rdi)"
    piece ".byte 0xf0, 0x90"
    piece "mov (%rdi), %rax; mov %rax, (%rsi)"
    piece "movb (%rax), %cl"
    piece "movq %rcx, 4(%rdi)"
    piece "mov $3, %ecx; rep movsq"
    piece "mov $5, %ecx; rep stosl"
    piece "mov $9, %ecx; repne scasb"
    piece "std; mov $4, %ecx; rep stosq"
    piece "div %rcx"
    piece "idivl %ecx"
    piece "xor %ecx, %ecx; div %ecx"
    piece "push (%rdi); pop (%rsi)"
    piece "push %rax; popq (%rdi)"
    piece "xlat"
    piece "bsf (%rdi), %rax"
    piece "btcq %rax, (%rdi)"
    piece "rdseed %eax"
    piece ".byte 0xc5, 0xf8, 0x77"
    piece ".byte 0x62, 0xf1, 0x7c, 0x48, 0x28, 0x07"
    piece ".byte 0xc4, 0xe2, 0x79, 0x58, 0x07"
    piece "invpcid (%rdi), %rax"
    piece "rsm"
    piece "getsec"
    piece "enclu"
    piece "rdpkru"
    piece "wrpkru"
#else
    piece "mov %cr0, %eax"
    piece "mov %eax, %cr0"
    piece "mov %cr2, %edx"
    piece "mov %edi, %cr2"
    piece "mov %cr3, %ecx"
    piece "mov %cr4, %ebx"
    piece "mov %eax, %cr4"
    piece "mov %db0, %eax"
    piece "mov %edi, %db1"
    piece "mov %db7, %eax"
    piece "mov %ecx, %db6"
    piece "mov %db4, %eax"
    piece "clts"
    piece "lmsw %ax"
    piece "smsw (%edi)"
    piece "invlpg (%edi)"
    piece "lgdt (%edi)"
    piece "lidt (%edi)"
    piece "sgdt (%edi)"
    piece "sidt (%edi)"
    piece "sldt %eax"
    piece "lldt %ax"
    piece "str %eax"
    piece "ltr %ax"
    piece "verr %ax"
    piece "verw %cx"
    piece "lar %ax, %ecx"
    piece "lsl %cx, %edx"
    piece "wbinvd"
    piece "invd"
    piece "cli"
    piece "sti"
    piece "rdmsr"
    piece "wrmsr"
    piece "rdmsr; wrmsr"
    piece "mov $0x70, %edx; outb %al, %dx; inb $0x71, %al"
    piece "rdtsc"
    piece "rdtscp"
    piece "rdpmc"
    piece "cpuid"
    piece "ud2; .byte 0x78, 0x65, 0x6e; cpuid"
    piece "ud2; .byte 0x78, 0x65, 0x6e; nop"
    piece "ud2"
    piece ".byte 0x0f, 0xff"
    piece ".byte 0x0f, 0xb9, 0xc0"
    piece ".byte 0xf1"
    piece ".byte 0x0f, 0x37"
    piece ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90"
    piece "int3"
    piece "int $3"
    piece "int $4"
    piece "int $1"
    piece "int $2"
    piece "int $8"
    piece "int $14"
    piece "int $0x20"
    piece "int $0x80"
    piece "test %eax, %eax; jnz 7f; inc %eax; 7: int $0x82" /* call 0 with ebx 0 would clear the trap table */
    piece "int $0xff"
    piece "inb %dx, %al"
    piece "inw %dx, %ax"
    piece "inl %dx, %eax"
    piece "outb %al, %dx"
    piece "outw %ax, %dx"
    piece "outl %eax, %dx"
    piece "inb $0x61, %al"
    piece "outb %al, $0x80"
    piece "mov $0xcf8, %edx; outl %eax, %dx; mov $0xcfc, %edx; inl %dx, %eax"
    piece "mov $2, %ecx; rep insb"
    piece "mov $2, %ecx; rep outsl"
    piece "insw"
    piece "outsb"
    piece "push %eax; popfl"
    piece "push %ecx; popfl; pushfl; pop %eax"
    piece "pushfw; popw %ax"
    piece "mov %ax, %ds"
    piece "mov %cx, %es"
    piece "mov %dx, %fs"
    piece "mov %ax, %gs"
    piece "mov %cx, %ss"
    piece "mov %ds, %eax; mov %es, %ecx; mov %fs, %edx"
    piece "push %eax; pop %fs"
    piece "push %fs; pop %eax; push %gs; pop %eax"
    piece "lss (%edi), %eax"
    piece "lfs (%edi), %eax"
    piece "lgs (%esi), %ecx"
    piece "mov %fs:(%eax), %ecx"
    piece "mov %gs:0, %ecx"
    piece "ljmp *(%edi)"
    piece "lcall *(%edi)"
    piece "sysenter"
    piece "sysexit"
    piece "monitor"
    piece "mwait"
    piece "xgetbv"
    piece "xsetbv"
    piece "vmcall"
    piece "vmrun"
    piece "vmload"
    piece "stgi"
    piece "clac"
    piece "stac"
    piece "rdrand %eax"
    piece "fninit; fnstenv (%edi)"
    piece "fxsave (%edi)"
    piece "fxrstor (%edi)"
    piece "ldmxcsr (%edi)"
    piece "stmxcsr (%esi)"
    piece "movaps (%edi), %xmm0"
    piece "movups %xmm0, (%edi)"
    piece "fldenv (%esi); fwait"
    piece "clflush (%edi)"
    piece "prefetchw (%edi)"
    piece "xchg %eax, (%edi)"
    piece "lock addl %eax, (%edi)"
    piece ".byte 0xf0, 0x90"
    piece "mov (%edi), %eax; mov %eax, (%esi)"
    piece "movb (%eax), %cl"
    piece "movl %ecx, 4(%edi)"
    piece "mov $3, %ecx; rep movsl"
    piece "mov $5, %ecx; rep stosl"
    piece "mov $9, %ecx; repne scasb"
    piece "std; mov $4, %ecx; rep stosl"
    piece "div %ecx"
    piece "idivl %ecx"
    piece "xor %ecx, %ecx; div %ecx"
    piece "push (%edi); pop (%esi)"
    piece "push %eax; popl (%edi)"
    piece "xlat"
    piece "bsf (%edi), %eax"
    piece "btcl %eax, (%edi)"
    piece "rdseed %eax"
    piece "invpcid (%edi), %eax"
    piece "rsm"
    piece "getsec"
    piece "enclu"
    piece "rdpkru"
    piece "wrpkru"
    piece "mov %edi, %cr3" /* a root that is none */
    piece "mov $0x40000000, %ecx; mov %edi, %eax; xor %edx, %edx; wrmsr" /* a hypercall page */
    piece "push %es; pop %ds"
    piece "push %eax; pop %es; push %ss; pop %es"
    piece ".byte 0xd6"
    piece "aaa; das; aam"
    piece "bound %eax, (%edi)"
    piece "into"
    piece "arpl %ax, %cx"
    piece "lds (%edi), %eax"
    piece "lcall $0xe019, $0"
    piece "pusha; popa"
    piece "enter $16, $1; leave"
    piece "mov %eax, %gs:(%edi)"
    piece "lock cmpxchg8b (%edi)"
    piece "pushfl; push %cs; call 6f; jmp 7f; 6: addl $0, (%esp); iretl; 7:"
    piece "push %cs; call 6f; jmp 7f; 6: lretl; 7:"
    piece "and $~0x20000, %edx; push %edx; push %cs; call 6f; jmp 7f; 6: iretl; 7:" /* the engine takes VM at its word */
#endif
    .section .rodata
    .globl pieces_end
pieces_end:

/* void run_piece(const void *code): with piece_registers in rax, rcx, rdx, rbx, rsi, rdi, and r8 to r11. */
    .text
    .globl run_piece, run_user, iret_landing
#ifdef __x86_64__
run_piece:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rdi, piece_code(%rip)
    call load
    call *piece_code(%rip)
    cld
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

load:
    lea piece_registers(%rip), %rax
    mov 8(%rax), %rcx
    mov 16(%rax), %rdx
    mov 24(%rax), %rbx
    mov 32(%rax), %rsi
    mov 40(%rax), %rdi
    mov 48(%rax), %r8
    mov 56(%rax), %r9
    mov 64(%rax), %r10
    mov 72(%rax), %r11
    mov (%rax), %rax
    ret

/* void run_user(const struct iret_frame *frame, word number): by the iret hypercall, or a multicall of it. */
run_user:
    mov %rdi, piece_code(%rip)
    mov %rsi, piece_number(%rip)
    call load
    mov piece_code(%rip), %rsp
    mov piece_number(%rip), %rax
    syscall
    ud2
#else
run_piece:
    push %ebx
    push %ebp
    push %esi
    push %edi
    mov %eax, piece_code
    call load
    call *piece_code
    cld
    push %ss            /* the kernel's own, whatever the piece has loaded */
    pop %ds
    push %ss
    pop %es
    pop %edi
    pop %esi
    pop %ebp
    pop %ebx
    ret

load:
    mov piece_registers, %eax
    mov piece_registers+4, %ecx
    mov piece_registers+8, %edx
    mov piece_registers+12, %ebx
    mov piece_registers+16, %esi
    mov piece_registers+20, %edi
    ret

/* void run_user(const struct iret_frame *frame, word number): by the iret hypercall, or a multicall of it. */
run_user:
    mov %eax, piece_code
    mov %edx, piece_number
    call load
    mov piece_code, %esp
    mov piece_number, %eax
    int $0x82
    ud2
#endif

iret_landing:           /* a kernel that came back so: its stack is not its own */
    cld
    jmp leave_caught

    .bss
    .balign 8
    .globl piece_registers
piece_registers: .skip 80
piece_code:      .skip 8
piece_number:    .skip 8
    .section .note.GNU-stack, "", @progbits
