"""Correction of labels: policies, judges, audited rows; then gold and corrected rows as one training set."""
