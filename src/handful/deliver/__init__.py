"""What a run hands over, and what is done with it afterwards: its folder's files, answers, figures, exports."""
