"""Fine-tune a student to recognise speech (CTC), and score what comes out."""
