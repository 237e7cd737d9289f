/* A played nvidia.ko: no code, only what modinfo and depmod read. Built with DRIVER_VERSION, VERMAGIC and LICENSE. */
#define INFO(number, text) \
  static const char info_##number[] __attribute__((section(".modinfo"), used, aligned(1))) = text

INFO(1, "version=" DRIVER_VERSION);
INFO(2, "license=" LICENSE);
INFO(3, "alias=pci:v000010DEd*sv*sd*bc03sc00i00*");
INFO(4, "alias=pci:v000010DEd*sv*sd*bc03sc02i00*");
INFO(5, "depends=");
INFO(6, "name=nvidia");
INFO(7, "vermagic=" VERMAGIC);
