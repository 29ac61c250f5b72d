qemu-img convert
qemu-img convert a
qemu-img convert a b
qemu-img create -q a 1M
qemu-img convert -O nope a b
qemu-img convert -f nope a b
qemu-img convert -c a b
qemu-img convert -c -C a b
qemu-img convert -S 3 a b
qemu-img convert -S 1G a b
qemu-img convert -S z a b
qemu-img convert -m 0 a b
qemu-img convert -m 17 a b
qemu-img convert -m x a b
qemu-img convert -C -S 4k a b
qemu-img convert -C --salvage a b
qemu-img convert --target-image-opts a b
qemu-img convert -n -o size=1 a b
qemu-img convert --target-is-zero a b
qemu-img convert --skip-broken-bitmaps a b
qemu-img convert -T foo a b
qemu-img convert -t foo a b
qemu-img convert -o help
qemu-img convert -o help a b
qemu-img convert --target-image-opts -n -O raw a file.filename=b
qemu-img convert -B x a b
qemu-img convert -F x a b
qemu-img convert -o foo=bar a b
qemu-img convert -o backing_file=x a b
qemu-img convert --bitmaps a b
qemu-img convert -l s a b
qemu-img convert -l s a a b
qemu-img convert -l snapshot.id=s a a b
qemu-img convert a nodir/b
qemu-img convert a nope:b
ls
