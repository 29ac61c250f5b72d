/* A guest of one sector: it prompts on its serial port a moment after power-on, echoes what is typed, and
 * powers off when the ACPI power button is pressed. Tests of starting, stopping and consoles boot
 * it in a second where a Linux guest takes ten. Typed letters: p powers off, r resets, d makes it
 * deaf to the power button.
 *
 *   as --32 -o guest.o guest.S && ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o guest.img guest.o
 */
        .code16
        .globl _start
        .set COM1, 0x3f8
        .set PM_STATUS, 0x600           /* where SeaBIOS puts the ACPI registers of both machines */
        .set PM_ENABLE, 0x602
        .set PM_CONTROL, 0x604
        .set POWER_BUTTON, 1 << 8
        .set SLEEP_NOW, 1 << 13         /* with sleep type 0, which QEMU takes as off */
_start:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %ss
        mov     $0x7c00, %sp
        mov     $PM_ENABLE, %dx
        mov     $POWER_BUTTON, %ax
        out     %ax, %dx
        mov     $text, %si
        call    print
serve:
        mov     $PM_STATUS, %dx
        in      %dx, %ax
        test    $POWER_BUTTON, %ax
        jnz     off
        mov     $COM1 + 5, %dx
        in      %dx, %al
        test    $1, %al                 /* a byte has come */
        jz      serve
        mov     $COM1, %dx
        in      %dx, %al
        out     %al, %dx
        cmp     $'p', %al
        je      off
        cmp     $'r', %al
        je      reset
        cmp     $'d', %al
        jne     serve
        mov     $PM_ENABLE, %dx
        xor     %ax, %ax
        out     %ax, %dx
        jmp     serve
off:
        mov     $PM_CONTROL, %dx
        mov     $SLEEP_NOW, %ax
        out     %ax, %dx
        hlt
reset:
        mov     $0xfe, %al
        out     %al, $0x64
        hlt
print:
        lodsb
        test    %al, %al
        jz      1f
        mov     $COM1, %dx
        out     %al, %dx
        jmp     print
1:      ret
text:
        .asciz  "\r\n[    0.000000] Linux version 0 (one sector)\r\n\r\nmini login: "
        .org    510
        .word   0xaa55
