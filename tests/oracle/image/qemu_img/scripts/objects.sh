qemu-img info --object secret,id=a,data=x --object secret,id=a,data=y f
qemu-img info --object id=x f
qemu-img info --object secret,id=s,data=x,format=foo f
qemu-img info --object secret,id=s,file=/nonexist f
qemu-img info --object '{"qom-type":"secret","id":"s0","data":"x"}' f
qemu-img info --object throttle-group,id=t,x-bps-total=5 f
qemu-img info --object foo,id=1 f
