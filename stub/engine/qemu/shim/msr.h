/* The CPU's model-specific registers. */
#ifndef PVSTUB_SHIM_MSR_H
#define PVSTUB_SHIM_MSR_H

#include <stdint.h>

#define MSR_EFER 0xc0000080

static inline void write_msr(uint32_t number, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(number), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static inline uint64_t read_msr(uint32_t number)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number));
    return low | (uint64_t)high << 32;
}

#endif
