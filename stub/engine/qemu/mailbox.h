/* What the shim in QEMU and the engine outside share: the page that begins with the register file, and the window.
 *
 * The window is a row of pages that only ring 0 can see, in every address space at the same virtual address; behind it
 * lie frames that the guest does not have (stub/engine/qemu/window.py). The mailbox is in the shim's own image. */
#ifndef PVSTUB_MAILBOX_H
#define PVSTUB_MAILBOX_H

/* Pages of the window. */
#define PAGE_EXTENDED 1 /* what FXSAVE or XSAVE stores; at the start leaves of CPUID, EAX to EDX, up to a leaf 0 */
#define PAGE_LAST_STACK 3 /* for what should never come: double faults, machine checks */
#define PAGE_ROOT 4     /* and two more: the page tables that the shim starts on */
#define PAGE_APIC 7     /* the local APIC's registers */
#define PAGE_TOUCH 8    /* whatever page the engine has mapped here, to be written to */
#define PAGE_CONTROL 9  /* of the virtual machine that the shim and the guest are, so that cpuid can be seen */
#define PAGE_HOST 10    /* its monitor's state */
#define PAGE_CODE 16    /* the shim: code, and from here on data, whose first page begins with the mailbox */
#define PAGE_MAIL 20
#define PAGES 32

/* Words of the mailbox, behind the register file; there is room for 128 (shim.ld). */
#define MAIL_TURN 64      /* so many times the engine has answered */
#define MAIL_DONE 65      /* so many times the shim has rung */
#define MAIL_VECTOR 66    /* what came: a vector, or one of those below */
#define MAIL_COMMAND 67   /* what the shim is to do before it waits again; COMMAND_RUN: run the guest */
#define MAIL_PATIENCE 68  /* so often the shim looks for the answer before it sleeps */
#define MAIL_CODE_SIZE 69 /* bytes of code at RIP, in the two words after that */
#define MAIL_CODE 70
#define MAIL_TSC_IN 72    /* the CPU's count of instructions when the guest was left, and when it was entered */
#define MAIL_TSC_OUT 73
#define MAIL_FLAGS 74     /* added to the guest's RFLAGS while it runs */
#define MAIL_DR 75        /* DR0 to DR3, DR7; DR6 at the exit */
#define MAIL_DR7 79
#define MAIL_DR6 80
#define MAIL_LDT 81       /* a descriptor of 16 bytes */
#define MAIL_GDT 83       /* the guest's GDT, as lgdt takes it: limit, base */
#define MAIL_XCR0 85
#define MAIL_SCRATCH 86   /* the shim's own */
#define MAIL_ENGINE_SLEEPS 88 /* for which ring the engine waits for a byte from PORT_BELL */
#define MAIL_SHIM_SLEEPS 89   /* for which turn the shim waits in a write to PORT_GATE, until what was there is read */
#define MAIL_STEPPED 90       /* opcode of the instruction that is stepped */
#define MAIL_RDTSCP_COUNTED 91 /* 1: this QEMU has counted an rdtscp that it does not run */
#define MAIL_ALARM 92         /* a count of the guest's instructions at which the shim is to ring */
#define MAIL_SCALE 93         /* 0: the TSC counts instructions; else it does not, and the shim makes this its tick in
                               * ns by 2^32 */
#define MAIL_ENTERED 94       /* RIP when the guest was entered */
#define MAIL_TO_JUMP 95       /* so many times the shim steps on by itself if the instruction was no taken jump */
#define MAIL_STATES 96        /* those of XSAVE that COMMAND_SAVE stores; 0: it is FXSAVE */

/* Ports whose bytes go into pipes (isa-debugcon). */
#define PORT_BELL 0x402
#define PORT_GATE 0x403

/* Instructions of the shim between its two looks at the count: for a trap, for a syscall; for a trap in the first. */
#define SHIM_COUNT 13
#define SYSCALL_COUNT 10
#define NESTED_COUNT 15
#define MONITOR_COUNT 4 /* between what the monitor gets and its #GP */

#define VECTOR_TIMER 0xf0
#define VECTOR_SYSCALL 256
#define VECTOR_SYSCALL32 257
#define VECTOR_ENTRY 512 /* added to the vector of an exception on the way into the guest */
#define VECTOR_BROKEN 1024 /* added to the vector of one in the shim itself */
#define VECTOR_READY 2048  /* the shim has started */
#define VECTOR_NONE 4096   /* nothing has come since a command was given */

#define COMMAND_RUN 0
#define COMMAND_SAVE 1     /* FXSAVE or XSAVE */
#define COMMAND_RESTORE 2  /* FXRSTOR or XRSTOR */
#define COMMAND_LDT 3
#define COMMAND_TOUCH 4    /* write to the page at PAGE_TOUCH what is there */
#define COMMAND_DEBUG 5    /* load the debug registers */
#define COMMAND_XCR0 6

/* Gates of its IDT that lie in the page of the mailbox: those of exceptions (shim.ld). */
#define NEAR_GATES 32

/* Selectors of the shim's own GDT; the guest's has Xen's code segment for ring 0. */
#define SHIM_CODE32 0x08
#define SHIM_DATA 0x10
#define SHIM_CODE 0x18
#define SHIM_TSS 0x20
#define SHIM_LDT 0x30
#define XEN_CODE 0xe008

#endif
