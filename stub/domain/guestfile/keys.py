"""Every key of a configuration that is known, and what pvstub does with it.

What is read has its handler in ``reader.py``. The others are a warning each: a key of an HVM guest's, one that has no
effect here and why, or one that nobody knows.
"""

from __future__ import annotations

_NO_NETWORK = "there are no network devices yet"
_NO_HOST = "the host's devices are not handed through"
_NO_SCHEDULER = "the guest has a CPU of its own, which nothing is shared with"
_NO_DEVICE = "there is no such device"

# Keys of a PV guest that are known, and why they have no effect.
WITHOUT_EFFECT = {
    "vif": _NO_NETWORK,
    "netif": _NO_NETWORK,
    "vfb": "there is no frame buffer; the guest has its console",
    "channel": _NO_DEVICE,
    "p9": _NO_DEVICE,
    "vtpm": _NO_DEVICE,
    "vkb": _NO_DEVICE,
    "vdispl": _NO_DEVICE,
    "vsnd": _NO_DEVICE,
    "pvcalls": _NO_DEVICE,
    "usbctrl": _NO_DEVICE,
    "usbdev": _NO_DEVICE,
    "blkif": "the guest is no driver domain",
    "tpmif": "the guest is no driver domain",
    "driver_domain": "the guest is no driver domain",
    "pci": _NO_HOST,
    "pci_msitranslate": _NO_HOST,
    "pci_power_mgmt": _NO_HOST,
    "pci_permissive": _NO_HOST,
    "pci_seize": _NO_HOST,
    "ioports": _NO_HOST,
    "irqs": _NO_HOST,
    "iomem": _NO_HOST,
    "dtdev": _NO_HOST,
    "passthrough": _NO_HOST,
    "e820_host": _NO_HOST,
    "cpus": _NO_SCHEDULER,
    "cpus_soft": _NO_SCHEDULER,
    "cpu": _NO_SCHEDULER,
    "cpu_weight": _NO_SCHEDULER,
    "cap": _NO_SCHEDULER,
    "period": _NO_SCHEDULER,
    "slice": _NO_SCHEDULER,
    "latency": _NO_SCHEDULER,
    "extratime": _NO_SCHEDULER,
    "pool": _NO_SCHEDULER,
    "vnuma": "machine memory has no nodes",
    "claim_mode": "memory is there when the guest starts",
    "seclabel": "there is no XSM policy",
    "init_seclabel": "there is no XSM policy",
    "max_grant_frames": "the grant table has Xen's default size",
    "max_maptrack_frames": "the grant table has Xen's default size",
    "max_grant_version": "the grant table has Xen's default version",
    "event_channels": "xl reads max_event_channels",
    "nomigrate": "no guest is migrated",
    "tsc_mode": "the guest's TSC counts virtual time",
    "localtime": "the guest's clock starts at --epoch",
    "rtc_timeoffset": "the guest's clock starts at --epoch",
    "cpuid_flags": "the guest sees the engine's CPU",
    "xend_udev_server": "there is no xend",
    "vmid": "xm's example files count guests with it",
    "bootloader_args": "a boot loader of dom0's is not run",
    "features": "the kernel's own features count",
    "vuart": _NO_DEVICE,
    "altp2m": "it is an HVM guest's",
    "xenstore_quota": "XenStore has its own limits",
}

HVM_ONLY = frozenset(
    """
    acpi acpi_firmware acpi_laptop_slate acpi_s3 acpi_s4 apic assisted_xapic assisted_x2apic bios bios_path_override
    boot device_model device_model_args device_model_args_hvm device_model_args_pv device_model_override
    device_model_stubdomain_override device_model_stubdomain_seclabel device_model_user device_model_version display
    fda fdb firmware_override gfx_passthru gfx_passthru_kind guest_os_type hap hdtype hpet hvm_override_smbios keymap
    mca_caps mmio_hole monitor ms_vm_genid msr_relaxed nestedhvm nographic oos opengl pae parallel pvh pvshim
    pvshim_cmdline pvshim_extra pvshim_path rdm rdm_mem_boundary sdl serial shadow_memory smbios smbios_firmware
    soundhw spice spiceagent_mouse spicehost spicepasswd spiceport spicetls_port spiceusbredirection spicevdagent
    spice_clipboard_sharing spice_image_compression spice_streaming_video spicedisable_ticketing stdvga
    stubdomain_cmdline stubdomain_kernel stubdomain_memory stubdomain_ramdisk system_firmware timer_mode tpm
    usb usbdevice usbversion vendor_device vga videoram viridian vnc vncconsole vncdisplay vnclisten vncpasswd
    vncunused vncviewer vpt_align x11 xauthority xen_extended_cpuid xen_platform_pci
    """.split()  # noqa: SIM905
)


def warning(name: str) -> str:
    """What is said of a key that is not read."""
    if name in WITHOUT_EFFECT:
        return f"{name} has no effect: {WITHOUT_EFFECT[name]}"
    if name in HVM_ONLY:
        return f"{name} has no effect: it is an HVM guest's"
    return f"{name} is no key that is known; ignored"
