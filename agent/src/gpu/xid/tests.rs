#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

#[test]
fn the_catalogue_is_sorted_and_names_no_code_twice() {
    for pair in CATALOGUE.windows(2) {
        assert!(pair[0].codes.end() < pair[1].codes.start(), "{}", pair[1].name);
    }
}

#[test]
fn each_code_asks_for_what_the_catalogue_says() {
    for (codes, expected) in [
        (&[79, 151][..], Action::Reboot),
        (
            &[46, 48, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158, 159],
            Action::ResetGpu,
        ),
        (&[13, 31, 94, 8, 69, 100, 135], Action::RestartApplication),
        (&[43, 63, 92, 121, 45, 154, 157], Action::None),
        (&[54, 142, 1, 500, u32::MAX], Action::ContactSupport),
        // Without a text that can be read, the worst of what it may be.
        (&[74, 144, 145, 146, 147, 148, 149, 150], Action::ResetGpu),
    ] {
        for code in codes {
            assert_eq!(action(*code, None), expected, "{code}");
        }
    }
}

#[test]
fn the_text_says_more_than_the_code() {
    let registers = |list: &str| format!("NVLink: fatal error detected on link 14({list})");
    for (code, text, expected) in [
        (
            154,
            "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
            Action::ResetGpu,
        ),
        (
            154,
            "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
            Action::Reboot,
        ),
        (
            154,
            "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
            Action::None,
        ),
        (
            154,
            "GPU recovery action changed from 0x0 (None) to 0x3 (Drain P2P)",
            Action::RestartApplication,
        ),
        (
            154,
            "GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)",
            Action::ResetGpu,
        ),
        (154, "GPU recovery action changed from 0x0 (None) to 0x9 (Dance)", Action::ContactSupport),
        (154, ")(", Action::None),
        (74, &registers("0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0"), Action::ResetGpu),
        (74, &registers("0x40000001, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0"), Action::None),
        (74, &registers("0x0, 0x0, 0x0, 0x0, 0x100000, 0x0, 0x0"), Action::None),
        (74, &registers("0x1, 0x0, 0x0, 0x10000, 0x0, 0x0, 0x0"), Action::ResetGpu),
        (74, &registers("0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0"), Action::ResetGpu),
        (74, &registers("0x1"), Action::ResetGpu),
        (
            145,
            "RLW_REMAP Nonfatal XC1 i0 Link 10 (0x00000082 0x00000040 0x0 0x0 0x0 0x0)",
            Action::ResetGpu,
        ),
        (
            145,
            "RLW_REMAP Nonfatal XC1 i0 Link 10 (0x00000082 0x00000004 0x0 0x0 0x0 0x0)",
            Action::RestartApplication,
        ),
        (
            145,
            "RLW_REMAP Nonfatal XC1 i0 Link 10 (0x00000082 0x80000000 0x0 0x0 0x0 0x0)",
            Action::None,
        ),
        (
            145,
            "RLW_RXPIPE Nonfatal XC1 i0 Link 10 (0x000000c2 0x00000001 0x0 0x0 0x0 0x0)",
            Action::None,
        ),
        (
            145,
            "RLW_RXPIPE Fatal XC1 i0 Link 10 (0x000004c2 0x00000001 0x0 0x0 0x0 0x0)",
            Action::ResetGpu,
        ),
        (
            146,
            "TLW_RX_PIPE1 Nonfatal XC0 i0 Link 02 (0x0000000b 0x00000002 0x0 0x0 0x0 0x0)",
            Action::None,
        ),
        (
            146,
            "TLW_RX_PIPE1 Fatal XC0 i0 Link 02 (0x0000000b 0x00000004 0x0 0x0 0x0 0x0)",
            Action::ResetGpu,
        ),
        (
            148,
            "NVLPW_CTRL Nonfatal XC0 i0 Link 02 (0x00000005 0x80000000 0x0 0x0 0x0 0x0)",
            Action::None,
        ),
        (
            149,
            "NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x0 0x0 0x0 0x0 0x0)",
            Action::ResetGpu,
        ),
        (
            149,
            "NETIR_LINK_DOWN Fatal   XC0 i0 Link 09 (0x02600011 0x0 0x0 0x0 0x0 0x0)",
            Action::None,
        ),
        (
            149,
            "NETIR_BER_EVENT Nonfatal XC0 i0 Link 09 (0x00000013 0x2 0x0 0x0 0x0 0x0)",
            Action::None,
        ),
        (
            149,
            "NETIR_MFDE_EVENT Nonfatal XC0 i0 Link 09 (0x00000014 0x3 0x0 0x0 0x0 0x0)",
            Action::None,
        ),
        (
            149,
            "NETIR_MFDE_EVENT Fatal XC0 i0 Link 09 (0x00000014 0x4 0x0 0x0 0x0 0x0)",
            Action::ResetGpu,
        ),
        (150, "MSE_WATCHDOG Fatal XC0 i0 Link 09 (0x0 0x0 0x0 0x0 0x0 0x0)", Action::ResetGpu),
        (149, "NETIR_NEWS Nonfatal XC0 i0 Link 09 (0x0 0x0)", Action::ResetGpu),
        (79, "GPU recovery action changed from 0x1 to 0x0 (None)", Action::Reboot),
    ] {
        assert_eq!(action(code, Some(text)), expected, "{code}: {text}");
    }
}

#[test]
fn the_drivers_line_is_read() {
    let pci = |domain, bus, device| PciAddress { domain, bus, device };
    for (line, expected) in [
        (
            "NVRM: Xid (PCI:0000:5a:00): 79, GPU has fallen off the bus.",
            Some((pci(0, 0x5a, 0), 79, "GPU has fallen off the bus.")),
        ),
        (
            "NVRM: Xid (PCI:0001:ab:1d): 69, pid=1310987, name=train.3, Class Error",
            Some((pci(1, 0xab, 0x1d), 69, "pid=1310987, name=train.3, Class Error")),
        ),
        ("NVRM: Xid (PCI:0000:00:08.0): 145", Some((pci(0, 0, 8), 145, ""))),
        (
            "NVRM: Xid (0000:03:00): 14, Channel 00000001",
            Some((pci(0, 3, 0), 14, "Channel 00000001")),
        ),
        ("NVRM: GPU at PCI:0000:66:00: GPU-12345678", None),
        ("NVRM: Xid (PCI:0000:66:00): abc, pid=1", None),
        ("NVRM: Xid (PCI:0000:66:00): 99999999999999, pid=1", None),
        ("NVRM: Xid (PCI:0000): 79", None),
        ("NVRM: Xid (PCI:zz:66:00): 79", None),
        ("somebody says NVRM: Xid (PCI:0000:5a:00): 79, boo", None),
        ("", None),
    ] {
        let read = parse(line).map(|line| (line.pci, line.code, line.text));
        assert_eq!(read, expected, "{line}");
    }
}

proptest! {
    #[test]
    fn no_line_breaks_the_reader(line in "(NVRM: Xid \\((PCI:)?)?[ -~]{0,80}", code in 0..200_u32) {
        let _ = parse(&line);
        let _ = action(code, Some(&line));
    }

    #[test]
    fn nvml_and_the_log_name_the_same_gpu(domain in 0..0x1_0000_u32, bus: u8, device in 0..32_u8) {
        let pci = PciAddress { domain, bus, device };
        let nvml = format!("{domain:08X}:{bus:02X}:{device:02X}.0");
        prop_assert_eq!(PciAddress::parse(&nvml), Some(pci));
        prop_assert_eq!(PciAddress::parse(&pci.to_string()), Some(pci));
    }
}
