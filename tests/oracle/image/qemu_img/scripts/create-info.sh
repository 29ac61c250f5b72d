qemu-img create x.raw 10M
qemu-img info x.raw
qemu-img info --output=json x.raw
stat -c %b x.raw
