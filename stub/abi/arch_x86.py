"""xen/arch-x86/{xen,xen-x86_64,xen-x86_32,cpuid}.h: selectors, address-space holes, vCPU contexts, CPUID leaves.

Where the two widths give one name different values, the plain name is the 64-bit one.
"""

from __future__ import annotations

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names

# xen-x86_64.h: flat selectors for a 64-bit guest. A 64-bit guest's kernel, too, runs in ring 3.
FLAT_RING3_CS32 = 0xE023
FLAT_RING3_CS64 = 0xE033
FLAT_RING3_DS32 = 0xE02B
FLAT_RING3_DS64 = 0x0000
FLAT_RING3_SS32 = 0xE02B
FLAT_RING3_SS64 = 0xE02B
FLAT_KERNEL_CS = 0xE033
FLAT_KERNEL_DS = 0x0000
FLAT_KERNEL_SS = 0xE02B
FLAT_USER_CS = 0xE033
FLAT_USER_DS = 0x0000
FLAT_USER_SS = 0xE02B
FLAT_KERNEL_CS64 = 0xE033
FLAT_KERNEL_DS64 = 0x0000
FLAT_KERNEL_SS64 = 0xE02B
FLAT_KERNEL_CS32 = 0xE023
FLAT_KERNEL_DS32 = 0xE02B
FLAT_KERNEL_SS32 = 0xE02B
FLAT_USER_CS64 = 0xE033
FLAT_USER_DS64 = 0x0000
FLAT_USER_SS64 = 0xE02B
FLAT_USER_CS32 = 0xE023
FLAT_USER_DS32 = 0xE02B
FLAT_USER_SS32 = 0xE02B

# xen-x86_32.h: flat selectors for a 32-bit guest. Its FLAT_KERNEL_* are FLAT_RING1_*, its FLAT_USER_* FLAT_RING3_*.
FLAT_RING1_CS = 0xE019
FLAT_RING1_DS = 0xE021
FLAT_RING1_SS = 0xE021
FLAT_RING3_CS = 0xE02B
FLAT_RING3_DS = 0xE033
FLAT_RING3_SS = 0xE033

# xen.h: the GDT from this page on belongs to Xen.
FIRST_RESERVED_GDT_PAGE = 14
FIRST_RESERVED_GDT_BYTE = 57344
FIRST_RESERVED_GDT_ENTRY = 7168

# xen-x86_64.h: the hole that belongs to Xen, and the read-only machine-to-physical table in it (8-byte entries).
HYPERVISOR_VIRT_START = 0xFFFF_8000_0000_0000
HYPERVISOR_VIRT_END = 0xFFFF_8800_0000_0000
MACH2PHYS_VIRT_START = 0xFFFF_8000_0000_0000
MACH2PHYS_VIRT_END = 0xFFFF_8040_0000_0000

MACH2PHYS_NR_ENTRIES = 0x800000000

# xen-x86_32.h: the same for a 32-bit PAE guest (4-byte entries; the hole reaches to the end of the address space).
HYPERVISOR_VIRT_START_PAE = 0xF580_0000
MACH2PHYS_VIRT_START_PAE = 0xF580_0000
MACH2PHYS_VIRT_END_PAE = 0xF680_0000

# set_segment_base: which base.
SEGBASE_FS = 0
SEGBASE_GS_USER = 1
SEGBASE_GS_KERNEL = 2
SEGBASE_GS_USER_SEL = 3

SEGBASES = value_names(globals(), "SEGBASE_")

# vcpu_guest_context.flags, and VGCF_in_syscall in iret_context.flags.
VGCF_i387_valid = 1 << 0
VGCF_in_kernel = 1 << 2
VGCF_failsafe_disables_events = 1 << 3
VGCF_syscall_disables_events = 1 << 4
VGCF_online = 1 << 5
VGCF_in_syscall = 1 << 8

# trap_info.flags: least privileged ring that may raise it (TI_GET_DPL), and whether delivery masks events (TI_GET_IF).
TI_DPL_MASK = 3
TI_IF = 1 << 2

# vCPUs whose vcpu_info lies in shared_info.
XEN_LEGACY_MAX_VCPUS = 32

# Bytes before cpuid that make Xen emulate it (``ud2a; .ascii "xen"``).
XEN_EMULATE_PREFIX = b"\x0f\x0bxen"

# The port that takes debug output, a byte at a time.
XEN_HVM_DEBUGCONS_IOPORT = 0xE9

# arch-x86/cpuid.h: Xen's CPUID leaves.
XEN_CPUID_FIRST_LEAF = 0x4000_0000
XEN_CPUID_SIGNATURE_EBX = 0x566E_6558
XEN_CPUID_SIGNATURE_ECX = 0x6558_4D4D
XEN_CPUID_SIGNATURE_EDX = 0x4D4D_566E

XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD = 1 << 0
XEN_HVM_CPUID_APIC_ACCESS_VIRT = 1 << 0
XEN_HVM_CPUID_X2APIC_VIRT = 1 << 1
XEN_HVM_CPUID_IOMMU_MAPPINGS = 1 << 2
XEN_HVM_CPUID_VCPU_ID_PRESENT = 1 << 3
XEN_HVM_CPUID_DOMID_PRESENT = 1 << 4
XEN_HVM_CPUID_EXT_DEST_ID = 1 << 5
XEN_HVM_CPUID_UPCALL_VECTOR = 1 << 6
XEN_CPUID_MACHINE_ADDRESS_WIDTH_MASK = 0xFF
XEN_CPUID_MAX_NUM_LEAVES = 5

TrapInfo64 = Struct(
    "TrapInfo64",
    16,
    vector=(0, "B"),
    flags=(1, "B"),
    cs=(2, "H"),
    address=(8, "Q"),
)
TrapInfo32 = Struct(
    "TrapInfo32",
    8,
    vector=(0, "B"),
    flags=(1, "B"),
    cs=(2, "H"),
    address=(4, "I"),
)
TrapInfo = Twin(TrapInfo64, TrapInfo32)

CpuUserRegs64 = Struct(
    "CpuUserRegs64",
    200,
    r15=(0, "Q"),
    r14=(8, "Q"),
    r13=(16, "Q"),
    r12=(24, "Q"),
    rbp=(32, "Q"),
    rbx=(40, "Q"),
    r11=(48, "Q"),
    r10=(56, "Q"),
    r9=(64, "Q"),
    r8=(72, "Q"),
    rax=(80, "Q"),
    rcx=(88, "Q"),
    rdx=(96, "Q"),
    rsi=(104, "Q"),
    rdi=(112, "Q"),
    error_code=(120, "I"),
    entry_vector=(124, "I"),
    rip=(128, "Q"),
    cs=(136, "H"),
    saved_upcall_mask=(140, "B"),
    rflags=(144, "Q"),
    rsp=(152, "Q"),
    ss=(160, "H"),
    es=(168, "H"),
    ds=(176, "H"),
    fs=(184, "H"),
    gs=(192, "H"),
)

CpuUserRegs32 = Struct(
    "CpuUserRegs32",
    68,
    ebx=(0, "I"),
    ecx=(4, "I"),
    edx=(8, "I"),
    esi=(12, "I"),
    edi=(16, "I"),
    ebp=(20, "I"),
    eax=(24, "I"),
    error_code=(28, "H"),
    entry_vector=(30, "H"),
    eip=(32, "I"),
    cs=(36, "H"),
    saved_upcall_mask=(38, "B"),
    eflags=(40, "I"),
    esp=(44, "I"),
    ss=(48, "H"),
    es=(52, "H"),
    ds=(56, "H"),
    fs=(60, "H"),
    gs=(64, "H"),
)
CpuUserRegs = Twin(CpuUserRegs64, CpuUserRegs32)

# What HYPERVISOR_iret takes off the 64-bit guest's stack.
IretContext64 = Struct(
    "IretContext64",
    72,
    rax=(0, "Q"),
    r11=(8, "Q"),
    rcx=(16, "Q"),
    flags=(24, "Q"),
    rip=(32, "Q"),
    cs=(40, "Q"),
    rflags=(48, "Q"),
    rsp=(56, "Q"),
    ss=(64, "Q"),
)

# A 64-bit guest's xen_callback_t is one address.
XenCallback32 = Struct("XenCallback32", 8, cs=(0, "I"), eip=(4, "I"))

ArchVcpuInfo64 = Struct("ArchVcpuInfo64", 16, cr2=(0, "Q"))
ArchVcpuInfo32 = Struct("ArchVcpuInfo32", 24, cr2=(0, "I"))
ArchVcpuInfo = Twin(ArchVcpuInfo64, ArchVcpuInfo32)

ArchSharedInfo64 = Struct(
    "ArchSharedInfo64",
    48,
    max_pfn=(0, "Q"),
    pfn_to_mfn_frame_list_list=(8, "Q"),
    nmi_reason=(16, "Q"),
    p2m_cr3=(24, "Q"),
    p2m_vaddr=(32, "Q"),
    p2m_generation=(40, "Q"),
)
ArchSharedInfo32 = Struct(
    "ArchSharedInfo32",
    28,
    max_pfn=(0, "I"),
    pfn_to_mfn_frame_list_list=(4, "I"),
    nmi_reason=(8, "I"),
    p2m_cr3=(12, "I"),
    p2m_vaddr=(16, "I"),
    p2m_generation=(20, "I"),
    wc_sec_hi=(24, "I"),
)
ArchSharedInfo = Twin(ArchSharedInfo64, ArchSharedInfo32)

# fpu_ctxt: an FXSAVE area. user_regs: a CpuUserRegs. trap_ctxt: 256 TrapInfos.
VcpuGuestContext64 = Struct(
    "VcpuGuestContext64",
    5168,
    fpu_ctxt=(0, "512s"),
    flags=(512, "Q"),
    user_regs=(520, "200s"),
    trap_ctxt=(720, "4096s"),
    ldt_base=(4816, "Q"),
    ldt_ents=(4824, "Q"),
    gdt_frames=(4832, "16Q"),
    gdt_ents=(4960, "Q"),
    kernel_ss=(4968, "Q"),
    kernel_sp=(4976, "Q"),
    ctrlreg=(4984, "8Q"),
    debugreg=(5048, "8Q"),
    event_callback_eip=(5112, "Q"),
    failsafe_callback_eip=(5120, "Q"),
    syscall_callback_eip=(5128, "Q"),
    vm_assist=(5136, "Q"),
    fs_base=(5144, "Q"),
    gs_base_kernel=(5152, "Q"),
    gs_base_user=(5160, "Q"),
)
VcpuGuestContext32 = Struct(
    "VcpuGuestContext32",
    2800,
    fpu_ctxt=(0, "512s"),
    flags=(512, "I"),
    user_regs=(516, "68s"),
    trap_ctxt=(584, "2048s"),
    ldt_base=(2632, "I"),
    ldt_ents=(2636, "I"),
    gdt_frames=(2640, "16I"),
    gdt_ents=(2704, "I"),
    kernel_ss=(2708, "I"),
    kernel_sp=(2712, "I"),
    ctrlreg=(2716, "8I"),
    debugreg=(2748, "8I"),
    event_callback_cs=(2780, "I"),
    event_callback_eip=(2784, "I"),
    failsafe_callback_cs=(2788, "I"),
    failsafe_callback_eip=(2792, "I"),
    vm_assist=(2796, "I"),
)
VcpuGuestContext = Twin(VcpuGuestContext64, VcpuGuestContext32)

XenCpuidLeaf = Struct(
    "XenCpuidLeaf",
    24,
    leaf=(0, "I"),
    subleaf=(4, "I"),
    a=(8, "I"),
    b=(12, "I"),
    c=(16, "I"),
    d=(20, "I"),
)

XenMsrEntry = Struct("XenMsrEntry", 16, idx=(0, "I"), flags=(4, "I"), val=(8, "Q"))
