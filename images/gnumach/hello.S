/* A first task for GNU Mach, which runs 32-bit programs on its 64-bit kernel: a line on Mach's console, then nothing
 * for ever. mach_print is trap 30 (kern/syscall_sw.c); its argument lies above a return address. Traps come by the
 * call gate that Mach keeps in the task's LDT. */
    .globl _start
_start:
    pushl $line
    pushl $0
    movl $-30, %eax
    lcall $7, $0
0:  jmp 0b

line:
    .asciz "Hello from a task of Mach's.\n"
