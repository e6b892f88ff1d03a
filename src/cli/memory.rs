//! Memory of this process.

/// Most bytes that were resident at once; `None` where the system does not say so in `/proc/self/status`.
pub(super) fn peak_bytes() -> Option<u64> {
    peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_where_it_is_told() {
        assert_eq!(
            peak("Name:\tsamebit\nVmPeak:\t  900 kB\nVmHWM:\t  12 kB\nVmRSS:\t 8 kB\n"),
            Some(12 << 10)
        );
        assert_eq!(peak("Name:\tsamebit\n"), None);
        assert_eq!(peak("VmHWM:\t12 pages\n"), None);
        #[cfg(target_os = "linux")]
        assert!(peak_bytes().unwrap() > 1 << 20);
    }
}
