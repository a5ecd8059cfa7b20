/* The root that user code runs on: the kernel's, which is in ring 1 and maps what is its own without US. */
#include "kit.h"
#include "parts.h"

u64 *make_user_root(void)
{
    return table_at(root_mfn());
}
