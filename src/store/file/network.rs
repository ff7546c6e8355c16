//! Rejects folders on network file systems. LMDB's locks and shared memory only work on one machine.

use std::path::Path;

use crate::error::Result;
#[cfg(any(target_os = "linux", test))]
use crate::error::StoreError;

/// The `f_type` of statfs(2), and its name. A FUSE file system may be a local disk, but statfs does not show that.
#[cfg(any(target_os = "linux", test))]
const NETWORK: [(u32, &str); 18] = [
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0000_564c, "NCP"),
    (0x0102_1997, "9P"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "kAFS"),
    (0x7375_7245, "Coda"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "PVFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x786f_4256, "VirtualBox shared folder"),
    (0x6573_5546, "FUSE"),
];

/// Rejects a folder whose `f_type` is that of a network file system.
#[cfg(any(target_os = "linux", test))]
fn refuse_magic(dir: &Path, magic: u32) -> Result<()> {
    match NETWORK.iter().find(|(known, _)| *known == magic) {
        Some((_, name)) => Err(StoreError::Io(format!(
            "{} is on a network file system ({name}), where the locks of the store may not hold: use a folder on a \
             local disk. If only one machine uses this one, allowNetworkFileSystem: true opens it (on the command \
             line --allow-network-fs)",
            dir.display()
        ))),
        None => Ok(()),
    }
}

/// Rejects a folder on a network file system.
#[cfg(target_os = "linux")]
pub(super) fn refuse_network(dir: &Path) -> Result<()> {
    // `f_type` has 32 significant bits, whatever the type of its field is.
    rustix::fs::statfs(dir).map_or(Ok(()), |found| refuse_magic(dir, found.f_type as u32))
}

/// Whether the file system overwrites blocks in place. On others each overwrite needs free space, and a full disk may
/// show only in `fdatasync`.
#[cfg(target_os = "linux")]
pub(super) fn overwrites_in_place(dir: &Path) -> bool {
    /// Btrfs, ZFS, bcachefs, NILFS2 and F2FS.
    const COPY_ON_WRITE: [u32; 5] = [0x9123_683e, 0x2fc1_2fc1, 0xca45_1a4e, 0x0000_3434, 0xf2f5_2010];
    let is_known = |magic: u32| COPY_ON_WRITE.contains(&magic) || refuse_magic(dir, magic).is_err();
    rustix::fs::statfs(dir).is_ok_and(|found| !is_known(found.f_type as u32))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn refuse_network(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_rejected_with_their_name() {
        let dir = Path::new("/data/sessions");
        for (magic, name) in [
            (0x6969, "NFS"),
            (0x00c3_6400, "Ceph"),
            (0x0bd0_0bd0, "Lustre"),
            (0x4750_4653, "GPFS"),
            (0x6573_5546, "FUSE"),
            (0xff53_4d42, "CIFS"),
        ] {
            let error = refuse_magic(dir, magic).unwrap_err();
            assert_eq!(error.code(), "ERR_STORE_IO");
            for part in ["/data/sessions", &format!("({name})"), "allowNetworkFileSystem"] {
                assert!(error.to_string().contains(part), "{error}");
            }
        }
    }

    #[test]
    fn local_file_systems_are_accepted() {
        // ext4, XFS, Btrfs, tmpfs, overlayfs, ZFS, F2FS.
        for magic in
            [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1, 0xf2f5_2010_u32]
        {
            assert_eq!(refuse_magic(Path::new("/data"), magic), Ok(()));
        }
    }

    #[test]
    fn each_file_system_type_has_one_name() {
        for (at, (magic, name)) in NETWORK.iter().enumerate() {
            assert!(NETWORK[..at].iter().all(|(other, others)| other != magic && others != name), "{name}");
        }
    }
}
