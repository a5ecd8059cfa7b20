/* console_io is Xen's own console, and not for such a domain, whatever it asks (xen/drivers/char/console.c). */
#include "kit.h"

VARIATION(denied, "no command, good or bad")
{
    char text[] = "not to be seen";
    watch(page());
    REFUSED("write", EPERM, hypercall(CONSOLE_IO, 0, sizeof text, text));
    REFUSED("write nothing", EPERM, hypercall(CONSOLE_IO, 0, 0, 0));
    REFUSED("write from Xen's area", EPERM, hypercall(CONSOLE_IO, 0, 8, HOLE));
    REFUSED("read", EPERM, hypercall(CONSOLE_IO, 1, sizeof text, text));
    check(!strcmp(text, "not to be seen"), "nothing is read", "%s", text);
    REFUSED("an unknown command", EPERM, hypercall(CONSOLE_IO, 2, 0, 0));
}
