//! The parts of flyball that need neither Python nor torch.
