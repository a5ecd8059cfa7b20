/* One instruction each that leaves the guest for its hypervisor, with labels before and behind it. */
    .cfi_sections .debug_frame
.macro function name
    .globl \name
    .type \name, @function
\name:
    .cfi_startproc
.endm
.macro done name
    .cfi_endproc
    .size \name, . - \name
.endm
.macro at name
    .globl at_\name
at_\name:
.endm
.macro behind name
    .globl behind_\name
behind_\name:
.endm

    .text
function do_syscall             /* long do_syscall(void): Xen's version */
    mov $17, %eax
    xor %edi, %edi
    xor %esi, %esi
at syscall
    syscall
behind syscall
    ret
done do_syscall

function do_int80               /* long do_int80(u64): what the handler makes of it */
    mov %rdi, %rax
at int80
    int $0x80
behind int80
    ret
done do_int80

function do_iret                /* long do_iret(void): 1234 by way of the iret hypercall */
    mov %rsp, %rdx
    push $0xe02b
    push %rdx
    push $0x202
    push $0xe030
    lea behind_iret(%rip), %rdx
    push %rdx
    push $0
    push $0x11
    push $0x22
    push $1234
    mov $23, %eax
at iret
    syscall
    ud2
behind iret
    ret
done do_iret

function do_load                /* long do_load(const void *): the handler maps the page; some flags are set */
    xor %eax, %eax
    cmp $3, %eax
at load
    mov (%rdi), %rax
behind load
    ret
done do_load

function do_skipped_load        /* long do_skipped_load(const void *): the handler goes on behind it */
    mov $-1, %eax
at skipped_load
    mov (%rdi), %rax
behind skipped_load
    ret
done do_skipped_load

function do_cpuid               /* u64 do_cpuid(u32): EBX:EAX */
    push %rbx
    .cfi_adjust_cfa_offset 8
    mov %edi, %eax
    xor %ecx, %ecx
at cpuid
    cpuid
behind cpuid
    shl $32, %rbx
    or %rbx, %rax
    pop %rbx
    .cfi_adjust_cfa_offset -8
    ret
done do_cpuid

function do_rdtsc
at rdtsc
    rdtsc
behind rdtsc
    shl $32, %rdx
    or %rdx, %rax
    ret
done do_rdtsc

function do_flags               /* u64 do_flags(void): as pushf shows them */
at pushf
    pushf
behind pushf
    pop %rax
    push %rax
at popf
    popf
behind popf
    ret
done do_flags

function do_movs
    mov %rdx, %rcx
at movs
    rep movsb
behind movs
    ret
done do_movs

function do_stos
    mov %rsi, %rcx
    mov %edx, %eax
at stos
    rep stosb
behind stos
    ret
done do_stos

function do_out
    mov %edi, %edx
    mov %esi, %eax
at out
    out %al, %dx
behind out
    ret
done do_out

function do_in
    mov %edi, %edx
    xor %eax, %eax
at in
    in %dx, %al
behind in
    ret
done do_in

function do_int3
at int3
    int3
behind int3
    ret
done do_int3

function do_single_steps        /* traps itself after each of ten nops, and after three instructions behind them */
    pushf
    orq $0x100, (%rsp)
    popf
at single_steps
    .fill 10, 1, 0x90
    pushf
    andq $~0x100, (%rsp)
    popf
behind single_steps
    ret
done do_single_steps

function do_registers           /* u64 do_registers(u64 rbx, double *xmm, long double *st): what came through */
    push %rbx
    .cfi_adjust_cfa_offset 8
    mov %rdi, %rbx
    movsd two_and_a_half(%rip), %xmm3
    fldpi
at registers
    nop
behind registers
    movsd %xmm3, (%rsi)
    fstpt (%rdx)
    mov %rbx, %rax
    pop %rbx
    .cfi_adjust_cfa_offset -8
    ret
done do_registers

function sled                   /* 10,000 places */
    .fill 10000, 1, 0x90
    ret
done sled

    .balign 4096
    .globl paged_code_page
paged_code_page:
function paged_code             /* long paged_code(long x): x + 5, a page of its own */
    lea 2(%rdi), %rax
    add $3, %rax
    ret
done paged_code
    .balign 4096

    .section .rodata
    .balign 8
two_and_a_half:
    .double 2.5
    .section .note.GNU-stack, "", @progbits
