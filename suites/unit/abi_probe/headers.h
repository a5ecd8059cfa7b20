/* Every public header that stub/abi encodes, as a guest of the latest interface includes them. */
#include <stddef.h>
#include <stdint.h>

#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include <xen/xen.h>

#include <xen/arch-x86/cpuid.h>
#include <xen/arch-x86/hvm/start_info.h>
#include <xen/callback.h>
#ifdef __XEN_TOOLS__
#include <xen/domctl.h>
#include <xen/sysctl.h>
#endif
#include <xen/elfnote.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/io/blkif.h>
#include <xen/io/console.h>
#include <xen/io/protocols.h>
#include <xen/io/xenbus.h>
#include <xen/memory.h>
#include <xen/nmi.h>
#include <xen/physdev.h>
#include <xen/platform.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>

/* errno.h is a list for the includer's macro; with __XEN__ it shows the numbers that stay inside Xen, too. */
enum {
#define XEN_ERRNO(name, value) name = value,
#define __XEN__
#include <xen/errno.h>
#undef __XEN__
};

/* xs_wire.h shows its table of error texts to those who have EINVAL as a macro. */
#define EINVAL EINVAL
#include <xen/io/xs_wire.h>

#ifdef __x86_64__
/* The architecture's flags, from linux-libc-dev. */
#include <asm/processor-flags.h>
#endif
