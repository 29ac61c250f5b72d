"""What a VM is in other tools' words: equivalents of what thinvirt does, as text.

Each form is a pure function of a `thinvirt.vm.qemu.Launch`: the values that the QEMU command line
is made of. `thinvirt.service.twins` puts those values together.
"""
