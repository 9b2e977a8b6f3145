"""What people read of finished runs: tables, figures, pictures, the model card."""
