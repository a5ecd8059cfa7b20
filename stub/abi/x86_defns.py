"""The architecture's own numbers that the PV interface speaks of, named as in Xen's asm/x86-defns.h and msr-index.h.

Source: AMD64 manual, vol. 2: control registers and rFLAGS (3.1), vectors and error codes (8.2, 8.4), MSRs (appendix A).
"""

from __future__ import annotations

from stub.abi.names import value_names

X86_EFLAGS_CF = 1 << 0
X86_EFLAGS_PF = 1 << 2
X86_EFLAGS_AF = 1 << 4
X86_EFLAGS_ZF = 1 << 6
X86_EFLAGS_SF = 1 << 7
X86_EFLAGS_TF = 1 << 8
X86_EFLAGS_IF = 1 << 9
X86_EFLAGS_DF = 1 << 10
X86_EFLAGS_OF = 1 << 11
X86_EFLAGS_IOPL = 3 << 12
X86_EFLAGS_NT = 1 << 14
X86_EFLAGS_RF = 1 << 16
X86_EFLAGS_VM = 1 << 17
X86_EFLAGS_AC = 1 << 18
X86_EFLAGS_VIF = 1 << 19
X86_EFLAGS_VIP = 1 << 20
X86_EFLAGS_ID = 1 << 21

X86_CR0_PE = 1 << 0
X86_CR0_MP = 1 << 1
X86_CR0_EM = 1 << 2
X86_CR0_TS = 1 << 3
X86_CR0_ET = 1 << 4
X86_CR0_NE = 1 << 5
X86_CR0_WP = 1 << 16
X86_CR0_AM = 1 << 18
X86_CR0_NW = 1 << 29
X86_CR0_CD = 1 << 30
X86_CR0_PG = 1 << 31

X86_CR4_VME = 1 << 0
X86_CR4_PVI = 1 << 1
X86_CR4_TSD = 1 << 2
X86_CR4_DE = 1 << 3
X86_CR4_PSE = 1 << 4
X86_CR4_PAE = 1 << 5
X86_CR4_MCE = 1 << 6
X86_CR4_PGE = 1 << 7
X86_CR4_PCE = 1 << 8
X86_CR4_OSFXSR = 1 << 9
X86_CR4_OSXMMEXCPT = 1 << 10
X86_CR4_UMIP = 1 << 11
X86_CR4_FSGSBASE = 1 << 16
X86_CR4_PCIDE = 1 << 17
X86_CR4_OSXSAVE = 1 << 18
X86_CR4_SMEP = 1 << 20
X86_CR4_SMAP = 1 << 21

# Exception vectors.
X86_EXC_DE = 0
X86_EXC_DB = 1
X86_EXC_NMI = 2
X86_EXC_BP = 3
X86_EXC_OF = 4
X86_EXC_BR = 5
X86_EXC_UD = 6
X86_EXC_NM = 7
X86_EXC_DF = 8
X86_EXC_CSO = 9
X86_EXC_TS = 10
X86_EXC_NP = 11
X86_EXC_SS = 12
X86_EXC_GP = 13
X86_EXC_PF = 14
X86_EXC_SPV = 15
X86_EXC_MF = 16
X86_EXC_AC = 17
X86_EXC_MC = 18
X86_EXC_XM = 19
X86_EXC_VE = 20
X86_EXC_CP = 21

VECTORS = value_names(globals(), "X86_EXC_")

# A bit for each vector whose frame carries an error code.
X86_EXC_HAVE_EC = sum(
    1 << vector
    for vector in (X86_EXC_DF, X86_EXC_TS, X86_EXC_NP, X86_EXC_SS, X86_EXC_GP, X86_EXC_PF, X86_EXC_AC, X86_EXC_CP)
)

# Error code of a page fault.
PFEC_page_present = 1 << 0
PFEC_write_access = 1 << 1
PFEC_user_mode = 1 << 2
PFEC_reserved_bit = 1 << 3
PFEC_insn_fetch = 1 << 4
PFEC_prot_key = 1 << 5

# Error code of a fault on a selector (asm/x86-defns.h: X86_XEC_*).
X86_XEC_EXT = 1 << 0
X86_XEC_IDT = 1 << 1
X86_XEC_TI = 1 << 2

MSR_TSC = 0x0010
MSR_APIC_BASE = 0x001B
MSR_IA32_MISC_ENABLE = 0x01A0
MSR_IA32_CR_PAT = 0x0277
MSR_EFER = 0xC000_0080
MSR_STAR = 0xC000_0081
MSR_LSTAR = 0xC000_0082
MSR_CSTAR = 0xC000_0083
MSR_SYSCALL_MASK = 0xC000_0084
MSR_FS_BASE = 0xC000_0100
MSR_GS_BASE = 0xC000_0101
MSR_SHADOW_GS_BASE = 0xC000_0102
MSR_TSC_AUX = 0xC000_0103

MSRS = value_names(globals(), "MSR_")

# What Xen loads into MSR_IA32_CR_PAT, and so what the PAT bits of a guest's PTEs mean: WB WT UC- UC WC WP UC UC.
XEN_MSR_PAT = 0x0000_0501_0007_0406

# -- instructions

INSN_PREFIXES = b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3" + bytes(range(0x40, 0x50))
"""Every byte that may stand before an opcode: segment, operand and address size, lock, repeat, REX (volume 2, 2.1)."""
