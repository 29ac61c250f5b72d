qemu-img -x
qemu-img --foo info
qemu-img info a b
qemu-img info
qemu-img info --output
qemu-img info --output=xml a
qemu-img info --out json a
qemu-img info -qf a
qemu-img info -fraw
