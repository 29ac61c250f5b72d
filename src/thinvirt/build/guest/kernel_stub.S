# The protected-mode part of a repacked kernel: unpacks LZ4 blocks and enters the kernel.
#
# A boot loader enters at the first byte as at any bzImage (Documentation/arch/x86/boot.rst,
# "32-bit Boot Protocol"): protected mode, flat segments, no paging, interrupts off, ESI pointing
# to the boot parameters. The kernel is entered by the 64-bit protocol: long mode, memory mapped
# onto itself, RSI pointing to the boot parameters.
#
# Symbols given by the linker: LOAD_START and LOAD_END, the memory the kernel's file occupies;
# ENTRY, where it is entered; PAYLOAD, the blocks, each preceded by its length in 32 bits, the
# last followed by a zero; TABLES, six free pages for page tables.

        .text
        .code32
        .globl  _start
_start: cli
        cld
        movl    %esi, %ebp                      # boot parameters

        movl    $TABLES, %edi                   # page tables: 4 GiB in pages of 2 MiB
        xorl    %eax, %eax
        movl    $(6 * 4096 / 4), %ecx
        rep stosl
        movl    $(TABLES + 0x1003), TABLES      # present, writable
        movl    $(TABLES + 0x2003), %eax
        movl    $(TABLES + 0x1000), %edi
        movl    $4, %ecx
1:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        loop    1b
        movl    $0x83, %eax                     # present, writable, large
        movl    $(TABLES + 0x2000), %edi
        movl    $2048, %ecx
2:      movl    %eax, (%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        loop    2b

        lgdt    gdt_pointer
        movl    %cr4, %eax
        orl     $0x20, %eax                     # PAE
        movl    %eax, %cr4
        movl    $TABLES, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx               # EFER
        rdmsr
        orl     $0x100, %eax                    # LME
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000001, %eax               # PG, PE
        movl    %eax, %cr0
        ljmp    $0x10, $long_mode

        .code64
long_mode:
        movl    $0x18, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        xorl    %eax, %eax
        movl    %eax, %fs
        movl    %eax, %gs

        movl    $LOAD_START, %edi
        movl    $LOAD_END, %ecx
        subl    %edi, %ecx
        shrl    $3, %ecx
        rep stosq                               # what is not in the blocks is zero
        movl    $LOAD_START, %edi
        movl    $PAYLOAD, %esi

# One block (LZ4 block format). RSI reads, RDI writes; R8 is the end of the block. Copies go by
# eight bytes and may write up to seven too many: the next copy writes there anyway, and behind
# the last is memory of the kernel that is set to zero after this.
block:  movl    (%rsi), %r8d
        addq    $4, %rsi
        testl   %r8d, %r8d
        jz      done
        addq    %rsi, %r8
sequence:
        movzbl  (%rsi), %eax                    # token: literal length, match length
        incq    %rsi
        movl    %eax, %ebx
        andl    $15, %eax
        shrl    $4, %ebx
        jz      match
        cmpl    $15, %ebx
        jne     literals
1:      movzbl  (%rsi), %edx
        incq    %rsi
        addl    %edx, %ebx
        cmpl    $255, %edx
        je      1b
literals:
        leaq    (%rdi,%rbx), %r9
        leaq    (%rsi,%rbx), %r10
2:      movq    (%rsi), %rdx
        movq    %rdx, (%rdi)
        addq    $8, %rsi
        addq    $8, %rdi
        cmpq    %r9, %rdi
        jb      2b
        movq    %r9, %rdi
        movq    %r10, %rsi
match:  cmpq    %r8, %rsi
        jae     block
        movzwl  (%rsi), %ecx                    # distance
        addq    $2, %rsi
        cmpl    $15, %eax
        jne     3f
4:      movzbl  (%rsi), %edx
        incq    %rsi
        addl    %edx, %eax
        cmpl    $255, %edx
        je      4b
3:      leaq    4(%rdi,%rax), %r9
        movq    %rdi, %r10
        subq    %rcx, %r10
        cmpl    $8, %ecx
        jb      overlapping
5:      movq    (%r10), %rdx
        movq    %rdx, (%rdi)
        addq    $8, %r10
        addq    $8, %rdi
        cmpq    %r9, %rdi
        jb      5b
        movq    %r9, %rdi
        jmp     sequence
overlapping:
        movb    (%r10), %dl
        movb    %dl, (%rdi)
        incq    %r10
        incq    %rdi
        cmpq    %r9, %rdi
        jb      overlapping
        jmp     sequence

done:   xorl    %eax, %eax
        movq    %rax, (%rdi)                    # the up to seven bytes too many
        movl    %ebp, %esi
        movl    $ENTRY, %eax
        jmp     *%rax

        .balign 8
gdt:    .quad   0
        .quad   0
        .quad   0x00af9a000000ffff              # 0x10: 64-bit code
        .quad   0x00cf92000000ffff              # 0x18: data
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt
