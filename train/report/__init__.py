"""Reports on finished runs: tables, figures, pictures and the model card.

In come run folders, which hold plain records and saved arrays; out go HTML, text and pictures. No network is loaded.
"""
